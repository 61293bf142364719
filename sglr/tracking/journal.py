"""The local journal of a run: whatever it logs goes here first, one JSON line each, in order.

A journal is a folder ``.sglr/journal/<item>-<hash of experiment and key>/``:

- ``journal.jsonl``: lines ``{"t": milliseconds, "kind": ...}``. Kinds: ``header`` (the first line: what the run is),
  ``open`` (a process begins or resumes it), ``params``, ``tags``, ``metrics``, ``headline``, ``artifact``, ``end``;
- ``artifacts/``: copies of files still to be sent, so that DVC may remove the originals;
- ``sent.json``: how far it has been sent (written by the sender); ``owner.lock``, ``sender.lock``.

It stays until the run has FINISHED and everything is sent. A run that failed or was killed keeps its journal, because
the next run of the same item and key continues it.
"""

import contextlib
import hashlib
import json
import re
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sglr import files
from sglr.tracking.settings import LOG
from sglr.tracking.values import PARAM_LENGTH, TAG_LENGTH, name, numbers, texts

JOURNALS = Path(".sglr") / "journal"
LINES = "journal.jsonl"
OWNER, SENDER = "owner.lock", "sender.lock"
_CLAIM_WAIT = 1.0
_FIELDS: dict[str, set[str]] = {
    "header": {"journal", "experiment", "stage", "item", "tags", "parent"},
    "open": set(),
    "params": {"values"},
    "tags": {"values"},
    "metrics": {"values", "step"},
    "headline": {"values"},
    "artifact": {"copy", "source", "folder"},
    "end": {"status"},
}
# What is sent is removed, with the folder it lies in: never one outside the journal's own.
_COPY = re.compile(r"artifacts/\d+/[^/]+")
# This many journals of one item, all unsent or held by others, mean that something else is wrong.
_MOST = 20


def now() -> int:
    """The present moment in milliseconds since 1970, as MLflow counts."""
    return time.time_ns() // 1_000_000


def safe(item: str) -> str:
    """``item`` as a file name."""
    return re.sub(r"[^\w.@=-]+", "_", item)


class Journal:
    """The writing end of one journal, for the process that holds it (see ``claim``): a run's ``Tracker``.

    A point is identified by its name and step: one that is there already is not written again, so a run resumed from
    a snapshot may log the epochs it repeats. A full disk never raises here: what cannot be written is counted in
    ``lost`` and reported once.
    """

    def __init__(self, folder: Path, header: Mapping[str, Any]) -> None:
        self.folder = folder
        self.lost = 0
        self.changed: Callable[[], None] = lambda: None
        self._points: set[tuple[str, int]] = set()
        self._headline: set[str] = set()
        self._params: set[str] = set()
        self._tags: dict[str, str] = {}
        self._mutex = threading.Lock()
        self._size = 0
        self.seconds = 0.0
        self._opened = self._last = 0
        path = folder / LINES
        for record, self._size in read(folder):
            self._remember(record)
        self._file = path.open("ab", buffering=0)
        # A process killed while it wrote leaves half a line.
        self._file.truncate(self._size)
        if self._size == 0:
            self._write({"t": now(), "kind": "header", "journal": uuid.uuid4().hex, **header})
        first = next(read(folder))[0]
        if first["kind"] != "header":
            raise files.FileError(f"{path} is damaged: its first line does not say which run it is.")
        self.id: str = first["journal"]
        self.started: int = first["t"]
        self.append("open")
        self.tags(header["tags"])

    def append(self, kind: str, **fields: Any) -> None:
        """Add one line with the present time."""
        record = {"t": now(), "kind": kind, **fields}
        try:
            self._write(record)
        except OSError as error:
            self.lost += 1
            if self.lost == 1:
                LOG.warning("cannot write %s: %s. Tracking loses what follows; the run continues.", self.folder, error)
        self.changed()

    def metrics(self, values: Mapping[str, Any], step: int = 0) -> None:
        """Points of one step; those already in the journal are skipped."""
        new = {key: value for key, value in numbers(values).items() if (key, step) not in self._points}
        if new:
            self.append("metrics", step=step, values=new)

    def headline(self, values: Mapping[str, Any]) -> None:
        """Points for the run itself (step 0) and for its parent, each name once."""
        self.metrics(values)
        new = {key: value for key, value in numbers(values).items() if key not in self._headline}
        if new:
            self.append("headline", values=new)

    def params(self, values: Mapping[str, Any]) -> None:
        """Params; the first value of each stays, as in MLflow."""
        new = {key: v for key, v in texts(values, PARAM_LENGTH).items() if key not in self._params}
        if new:
            self.append("params", values=new)

    def tags(self, values: Mapping[str, Any]) -> None:
        """Tags that are new or have changed."""
        new = {key: v for key, v in texts(values, TAG_LENGTH).items() if self._tags.get(key) != v}
        if new:
            self.append("tags", values=new)

    def artifact(self, path: str | Path, folder: str | None = None) -> None:
        """A file or a folder, copied aside until it is sent."""
        path = Path(path)
        copy = Path("artifacts") / str(self._size) / path.name
        try:
            (self.folder / copy).parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                shutil.copytree(path, self.folder / copy, dirs_exist_ok=True)
            else:
                shutil.copy2(path, self.folder / copy)
        except OSError as error:
            LOG.warning("cannot keep a copy of %s for tracking: %s", path, error)
        target = name(folder) if folder else None
        self.append("artifact", copy=str(copy), source=str(path.absolute()), folder=target)

    def worked(self) -> float:
        """Seconds at work up to now, without pauses between a kill and a resumption."""
        return self.seconds + max(0, now() - self._last) / 1000

    def close(self) -> None:
        """Close the file; the journal stays."""
        self._file.close()

    def _write(self, record: dict[str, Any]) -> None:
        line = (json.dumps(record) + "\n").encode()
        with self._mutex:
            rest = line
            try:
                while rest:
                    rest = rest[self._file.write(rest) :]
            except OSError:
                with contextlib.suppress(OSError):
                    self._file.truncate(self._size)
                raise
            self._size += len(line)
            self._remember(record)

    def _remember(self, record: dict[str, Any]) -> None:
        kind, content = record["kind"], record.get("values", {})
        if kind == "open":
            self._opened = self._last = record["t"]
        # A clock may be set back.
        self.seconds += max(0, record["t"] - self._last) / 1000 if self._opened else 0
        self._last = record["t"]
        if kind == "metrics":
            self._points.update((key, record["step"]) for key in content)
        elif kind == "headline":
            self._headline.update(content)
        elif kind == "params":
            self._params.update(content)
        elif kind == "tags":
            self._tags.update(content)


@dataclass(frozen=True)
class Survey:
    """A journal at a glance: its first line, its status (None: no ``end`` since it was opened), what is not sent."""

    header: dict[str, Any]
    status: str | None
    points: int
    files: int
    lines: int

    def __str__(self) -> str:
        return f"{self.points} points and {self.files} files" if self.points or self.files else "params, tags or status"


def survey(folder: Path, sent: int, put_off: Collection[int] = ()) -> Survey | None:
    """The journal's contents, and how much lies behind byte ``sent`` or in the lines that end at ``put_off``.

    None when it does not say which run it belongs to.
    """
    first: dict[str, Any] | None = None
    status = None
    points = artifacts = lines = 0
    for record, end in read(folder):
        first = first or record
        if record["kind"] in ("open", "end"):
            status = record.get("status")
        if end > sent or end in put_off:
            lines += 1
            points += len(record["values"]) if record["kind"] in ("metrics", "headline") else 0
            artifacts += record["kind"] == "artifact"
    if first is None or first["kind"] != "header":
        return None
    return Survey(first, status, points, artifacts, lines)


def read(folder: Path, offset: int = 0) -> Iterator[tuple[dict[str, Any], int]]:
    """Complete lines from byte ``offset`` on, each with the offset behind it; a damaged line is skipped."""
    try:
        file = (folder / LINES).open("rb")
    except FileNotFoundError:
        return
    with file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            record = _record(line)
            if record is not None:
                yield record, offset
            else:
                LOG.warning("%s: a damaged line before byte %d is skipped", folder / LINES, offset)


def _record(line: bytes) -> dict[str, Any] | None:
    """A line of a journal; None when it is not one that a Journal writes."""
    try:
        record = json.loads(line)
        whole = type(record["t"]) is int and _FIELDS[record["kind"]] <= record.keys()
        whole = whole and isinstance(record.get("values", {}), dict) and type(record.get("step", 0)) is int
        whole = whole and (record["kind"] != "artifact" or _COPY.fullmatch(record["copy"]) is not None)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None
    return record if whole else None


def folders(root: Path) -> list[Path]:
    """The journals under ``root``, by name."""
    return sorted(path.parent for path in (root / JOURNALS).glob(f"*/{LINES}"))


def mark_killed(folder: Path) -> None:
    """Note that the run's process was killed, at the time of its last line. Only for the holder of ``owner.lock``."""
    last, size = 0, 0
    for record, end in read(folder):
        last, size = record["t"], end
    with (folder / LINES).open("r+b") as file:
        file.truncate(size)
        file.seek(size)
        file.write((json.dumps({"t": last, "kind": "end", "status": "KILLED"}) + "\n").encode())


@contextlib.contextmanager
def claim(root: Path, header: Mapping[str, Any], key: str) -> Iterator[Journal]:
    """Hold the journal of ``header['item']`` and ``key``: the unfinished one there is, or a new one.

    One that is finished and only waits to be sent is left alone, and so is one that another process holds.
    Raises FileError when no journal can be written under ``root``.
    """
    short = hashlib.sha256(f"{header['experiment']}/{key}".encode()).hexdigest()[:12]
    base = root / JOURNALS / f"{safe(header['item'])}-{short}"
    with contextlib.ExitStack() as held:
        yield _first_free(base, header, held)


def _first_free(base: Path, header: Mapping[str, Any], held: contextlib.ExitStack) -> Journal:
    reason: object = f"{_MOST} finished runs of it wait to be sent (sglr sync)"
    for number in range(1, _MOST + 1):
        folder = base if number == 1 else base.with_name(f"{base.name}.{number}")
        with contextlib.ExitStack() as attempt:
            try:
                attempt.enter_context(files.lock(folder / OWNER, timeout=_CLAIM_WAIT, holder="another process"))
                there = survey(folder, 0)
                if there is not None and there.status == "FINISHED":
                    continue
                journal = Journal(folder, header)
            except (files.FileError, OSError) as error:
                reason = error
                continue
            attempt.callback(journal.close)
            held.push(attempt.pop_all())
            return journal
    raise files.FileError(f"cannot write a journal at {base}: {reason}")
