"""Items of a study that do not wait for each other, run side by side, each by a DVC process of its own."""

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from sglr import files, processes
from sglr.config.wording import some
from sglr.project.items import Item, read_items
from sglr.project.order import in_order, upstream_of
from sglr.project.status import status

LOGS = Path(".sglr", "logs")
"""What each item said when it ran last, by its name."""
Outcome = Literal["ran", "cached", "unchanged", "failed", "stopped"]
_LOOKS = 0.1  # seconds between two looks at those that are at work
_ENDING = (signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Ended:
    """An item that came to its end: it ran, came from DVC's cache, needed nothing, failed, or was stopped with this."""

    item: str
    outcome: Outcome
    seconds: float
    log: Path


@dataclass(frozen=True)
class Told:
    """Who is told of what: an item and its device (None: the environment's) when it starts, how it ended, and several
    times a second which are at work, and for how many seconds."""

    start: Callable[[str, str | None], object] = lambda item, device: None
    end: Callable[[Ended], object] = lambda ended: None
    meanwhile: Callable[[dict[str, float]], object] = lambda at_work: None


@dataclass
class _AtWork:
    item: str
    device: str | None
    process: subprocess.Popen[bytes]
    log: Path
    since: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.since

    def ended(self, outcome: Outcome | None = None) -> Ended:
        return Ended(self.item, outcome or self._outcome(), self.seconds, self.log)

    def _outcome(self) -> Outcome:
        if self.process.returncode != 0:
            return "failed"
        said = self.log.read_text(encoding="utf-8", errors="replace")
        if f"Running stage '{self.item}'" in said:
            return "ran"
        return "cached" if f"Stage '{self.item}' is cached" in said else "unchanged"


def to_run(root: Path, wanted: Sequence[str] = ()) -> list[Item]:
    """The items that are not done, of those wanted and what they depend on (by default all), each after those it
    depends on.

    Raises FileError for a name that the study does not have, and while another process is at work on one of them;
    FileError and ConfigError as ``status``.
    """
    items = read_items(root)
    upstream = upstream_of(items)
    unknown = set(wanted) - upstream.keys()
    if unknown:
        raise files.FileError(
            f"the study has no item {some(sorted(map(repr, unknown)), 3)}; `sglr status` lists them (experiment.methods"
            " and experiment.seeds decide)."
        )
    asked, left = set(wanted) or set(upstream), list(wanted)
    while left:
        more = upstream[left.pop()] - asked
        asked |= more
        left += more
    states = {one.item: one.state for one in status(root)}
    busy = sorted(name for name in asked if states[name] in ("running", "orphaned"))
    if busy:
        raise files.FileError(
            f"another process is at work on {some(busy, 3)}: wait for it, or stop it, then run this again."
        )
    return [item for item in in_order(items, upstream) if item.name in asked and states[item.name] != "done"]


def places(jobs: int | None, threads: int) -> list[str | None]:
    """A value of SGLR_DEVICE for each of ``jobs`` items at once, None where the environment's is right.

    By default one for each GPU, or on a CPU for each ``threads`` cores; one where the environment names a GPU or lets
    several processes share an item. More than there are GPUs share them. Raises ConfigError for an environment that
    cannot be.
    """
    device = processes.device(os.environ.get("SGLR_DEVICE", "auto"))
    asked = os.environ.get("SGLR_NPROC", "auto")
    if asked != "auto" and processes.count(asked, device) > 1:
        return [None] * (jobs or 1)
    if device.type != "cuda":
        return [None] * (jobs or max(1, processes.cores() // threads))
    if device.index is not None:
        return [None] * (jobs or 1)
    gpus = torch.cuda.device_count()
    return [f"cuda:{place % gpus}" for place in range(jobs or gpus)]


def run(root: Path, items: Sequence[Item], devices: Sequence[str | None], told: Told = Told()) -> list[str]:
    """Run items by ``dvc repro --single-item``, as many at once as there are ``devices``, each after all those it
    depends on; return those that did not come to a good end.

    devices: a value of SGLR_DEVICE for each place, or None to leave the environment's. Where an item fails, what
    depends on it is left out, and all others still run. What an item prints goes to ``LOGS``. Ctrl-C, SIGTERM and
    SIGHUP stop all, which write their snapshots, and go on as an exception once they have ended. Results are those of
    ``dvc repro``. Raises FileError without DVC.
    """
    if importlib.util.find_spec("dvc") is None:
        raise files.FileError('DVC is not installed here: pip install -e ".[pipeline]".')
    upstream = upstream_of(read_items(root))
    waiting, at_work, good = list(items), list[_AtWork](), set[str]()
    (root / LOGS).mkdir(parents=True, exist_ok=True)
    with _signals_as_exceptions():
        try:
            while waiting or at_work:
                free = list(devices)
                for one in at_work:
                    free.remove(one.device)
                still = {item.name for item in waiting} | {one.item for one in at_work}
                for item in [item for item in waiting if not upstream[item.name] & still][: len(free)]:
                    waiting.remove(item)
                    at_work.append(_started(root, item.name, free.pop(0)))
                    told.start(item.name, at_work[-1].device)
                over = [one for one in at_work if one.process.poll() is not None]
                if not over:
                    told.meanwhile({one.item: one.seconds for one in at_work})
                    time.sleep(_LOOKS)
                for one in over:
                    at_work.remove(one)
                    ended = one.ended()
                    told.end(ended)
                    if ended.outcome != "failed":
                        good.add(one.item)
                        continue
                    waiting = _without(waiting, one.item, upstream)
        finally:
            for one in _stopped(at_work):
                told.end(one.ended("stopped"))
    return [item.name for item in items if item.name not in good]


def _without(waiting: list[Item], failed: str, upstream: dict[str, set[str]]) -> list[Item]:
    """Those that do not depend on an item that failed, in whatever many steps."""
    lost = {failed}
    for item in waiting:  # each after those it depends on
        if upstream[item.name] & lost:
            lost.add(item.name)
    return [item for item in waiting if item.name not in lost]


def _started(root: Path, item: str, device: str | None) -> _AtWork:
    """DVC at work on one item, in a process group of its own: what stops all reaches each of them once, from here."""
    environment = dict(os.environ)
    if device is not None:
        environment["SGLR_DEVICE"] = device
    ours = str(Path(sys.executable).parent)
    # Stages are started as `python`, which must be the one that has what they need.
    if ours not in environment.get("PATH", "").split(os.pathsep):
        environment["PATH"] = os.pathsep.join([ours, environment.get("PATH", os.defpath)])
    log = root / LOGS / f"{item}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            # Others take DVC's lock for moments, and may read many files under it.
            [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item", item],
            cwd=root, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            process_group=0,
        )  # fmt: skip
    return _AtWork(item, device, process, log)


def _stopped(at_work: list[_AtWork]) -> list[_AtWork]:
    """All of them, after they ended on a signal: they may have a snapshot to write."""
    for one in at_work:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(one.process.pid, signal.SIGINT)
    for one in at_work:
        one.process.wait()
    return at_work


@contextlib.contextmanager
def _signals_as_exceptions() -> Iterator[None]:
    """In the block SIGTERM and SIGHUP raise SystemExit, unless they are ignored (nohup) or somebody else's."""

    def leave(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    ours = [number for number in _ENDING if signal.getsignal(number) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, leave)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def tail(log: Path, lines: int = 20) -> str:
    """The last lines of what an item said."""
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").rstrip().splitlines()[-lines:])
