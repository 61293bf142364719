"""Sending a journal to a server: in order, nothing missing or duplicated, whatever fails or is killed."""

import contextlib
import dataclasses
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sglr import files
from sglr.tracking import journal
from sglr.tracking.server import JOURNAL_TAG, PARENT_TAG, Point, RunGoneError, Server
from sglr.tracking.settings import LOG, shown

PROGRESS = "sent.json"
_BATCH = 1000


@dataclass
class DeliveryState:
    """How far a journal has been sent.

    ``offset``: bytes that the server certainly has, but for the lines that end at ``put_off``: files that could not be
    stored while all else could. ``inflight``: bytes that have been on their way; of those behind ``offset`` the server
    may have all, some or none. ``creating``: a run was about to be created.
    """

    run_id: str | None = None
    parent_id: str | None = None
    offset: int = 0
    inflight: int = 0
    creating: bool = False
    put_off: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not all(type(place) is int and place >= 0 for place in (self.offset, self.inflight, *self.put_off)):
            raise TypeError("a place in a journal is a number of bytes")

    @classmethod
    def read(cls, folder: Path) -> "DeliveryState":
        """The progress noted in a journal's folder; the beginning when there is no readable note."""
        try:
            return cls(**files.read_json(folder / PROGRESS))
        except (files.FileError, TypeError):
            # A damaged note means that there may be a run already.
            return cls(creating=(folder / PROGRESS).exists())

    def write(self, folder: Path) -> None:
        """Note it, atomically."""
        files.write_json(folder / PROGRESS, dataclasses.asdict(self))


class Delivery:
    """Sends one journal. Only for the holder of its ``sender.lock``.

    ``parent_of`` gives the parent's run id for a journal's header.

    Before a batch leaves, its end is noted; after the server has confirmed it, its end becomes the new beginning. When
    a batch may have arrived without our hearing of it, the next attempt first asks the server which points it has.
    A run that is not on the server (another server, a new database, deleted) is recreated from the whole journal.
    """

    def __init__(self, folder: Path, server: Server, parent_of: Callable[[dict[str, Any]], str]) -> None:
        self.progress = DeliveryState.read(folder)
        self._folder = folder
        self._server = server
        self._parent_of = parent_of
        first = next(journal.read(folder), None)
        if first is None or first[0]["kind"] != "header":
            raise files.FileError(f"{folder} does not say which run it is; delete it.")
        self.header = first[0]
        self._checked = False

    def step(self) -> bool:
        """Send the next batch; False when everything in the journal has been sent, or put off.

        Raises whatever MLflow raises when the server fails; calling it again continues where it failed. A file that
        alone cannot be stored (its location in MLflow is on another machine, or needs a missing package) is put off.
        """
        if not self._checked:
            self._find_run()
        batch, end = self._next()
        if not batch:
            return False
        doubtful = self.progress.offset < self.progress.inflight
        self._note(inflight=max(end, self.progress.inflight))
        put_off = before = self.progress.put_off
        try:
            if batch[0]["kind"] == "artifact":
                if reason := self._store(batch[0]):
                    put_off = [*put_off, end]
                    LOG.warning(
                        "%s: MLflow cannot store %s (%s). The rest is sent; this is retried at the run's end and by"
                        " `sglr sync`.",
                        self.header["item"], batch[0]["source"], reason,
                    )  # fmt: skip
            elif batch[0]["kind"] in ("open", "end"):
                self._act(batch[0])
            else:
                self._log(batch, doubtful)
        except RunGoneError as gone:
            self._forget(gone.run_id)
            return True
        self._note(offset=end, put_off=put_off)
        if put_off == before:
            self._drop_copy(batch[0])
        return True

    def drain(self) -> str:
        """Send everything, files that were put off last; returns why some of those could not be stored, or ""."""
        while True:
            while self.step():
                pass
            try:
                return self._store_put_off()
            except RunGoneError as gone:
                self._forget(gone.run_id)

    def _store_put_off(self) -> str:
        reason = ""
        files_ = [pair for pair in journal.read(self._folder) if pair[0]["kind"] == "artifact"]
        # Where several go to the same place the last one counts, which may have been stored long ago.
        newest = {(record["folder"], Path(record["source"]).name): end for record, end in files_}
        for record, end in files_:
            if end not in self.progress.put_off:
                continue
            if newest[record["folder"], Path(record["source"]).name] == end and (found := self._store(record)):
                reason = found
            else:
                self._note(put_off=[other for other in self.progress.put_off if other != end])
                self._drop_copy(record)
        return reason

    def _drop_copy(self, record: dict[str, Any]) -> None:
        """Remove the copy of a file that has been stored, and noted so."""
        if record["kind"] == "artifact":
            shutil.rmtree((self._folder / record["copy"]).parent, ignore_errors=True)

    def _next(self) -> tuple[list[dict[str, Any]], int]:
        batch: list[dict[str, Any]] = []
        points, end = 0, self.progress.offset
        for record, behind in journal.read(self._folder, self.progress.offset):
            alone = record["kind"] in ("open", "end", "artifact")
            if batch and alone:
                break
            batch.append(record)
            end = behind
            points += len(record.get("values", ()))
            if alone or points >= _BATCH:
                break
        return batch, end

    def _act(self, record: dict[str, Any]) -> None:
        run_id = self._run_id()
        if record["kind"] == "open":
            if self._server.status(run_id) != "RUNNING":
                self._server.set_status(run_id, "RUNNING")
        else:
            self._server.set_status(run_id, record["status"], ended=record["t"])

    def _store(self, record: dict[str, Any]) -> str:
        """Store a file; why it cannot be, or "". Raises where the server does not answer anything else either."""
        copy, source = self._folder / record["copy"], Path(record["source"])
        if copy.exists() or source.exists():
            try:
                self._server.artifact(self._run_id(), copy if copy.exists() else source, record["folder"])
            except Exception as error:
                if self._server.status(self._run_id()) is None:
                    raise RunGoneError(self._run_id()) from None
                return shown(error) or type(error).__name__
        else:
            LOG.warning("%s: artifact %s is gone and cannot be sent", self.header["item"], source)
        return ""

    def _log(self, batch: list[dict[str, Any]], doubtful: bool) -> None:
        own: list[Point] = []
        headline: list[Point] = []
        params: dict[str, str] = {}
        tags: dict[str, str] = {}
        for record in batch:
            content = record.get("values", {})
            if record["kind"] == "metrics":
                own += [(key, value, record["t"], record["step"]) for key, value in content.items()]
            elif record["kind"] == "headline":
                # At one step the latest timestamp is the value MLflow shows: a later evaluation overrides an earlier.
                headline += [(key, value, self.header["t"], 0) for key, value in content.items()]
            elif record["kind"] == "params":
                params |= content
            elif record["kind"] == "tags":
                tags |= content
        run_id, parent_id = self._run_id(), self.progress.parent_id
        self._server.log(run_id, metrics=self._missing(run_id, own, doubtful), params=params, tags=tags)
        if parent_id is not None:
            self._server.log(parent_id, metrics=self._missing(parent_id, headline, doubtful))

    def _missing(self, run_id: str, points: list[Point], doubtful: bool) -> list[Point]:
        if not doubtful:
            return points
        stored = {key: self._server.stored(run_id, key) for key in {point[0] for point in points}}
        return [point for point in points if (point[3], point[2]) not in stored[point[0]]]

    def _find_run(self) -> None:
        """Have a run for the journal on this server, and its parent, where it is to have one."""
        if self.progress.run_id is not None and self._server.status(self.progress.run_id) is None:
            self._forget(self.progress.run_id)
        if self.progress.run_id is None:
            self._create_run()
        parent_id = self.progress.parent_id
        if self.header["parent"] and (parent_id is None or self._server.status(parent_id) is None):
            parent_id = self._parent_of(self.header)
            self._server.log(self._run_id(), tags={PARENT_TAG: parent_id})
            self._note(parent_id=parent_id)
        self._checked = True

    def _create_run(self) -> None:
        header = self.header
        experiment_id = self._server.experiment(header["experiment"])
        tags = {**header["tags"], JOURNAL_TAG: header["journal"]}
        run_id = None
        if self.progress.creating:
            # Killed, or cut off, between creating a run and noting it: it carries the journal's name.
            run_id = self._server.newest(experiment_id, {JOURNAL_TAG: header["journal"]})
        self._note(creating=True)
        run_id = run_id or self._server.create(experiment_id, header["item"], header["t"], tags)
        self._note(run_id=run_id, creating=False)

    def _forget(self, run_id: str) -> None:
        """What was sent to a run that is gone counts as not sent."""
        if run_id == self.progress.parent_id:
            self._note(parent_id=None)
        else:
            self.progress = DeliveryState()
            self._note()
        self._checked = False

    def _run_id(self) -> str:
        assert self.progress.run_id is not None
        return self.progress.run_id

    def _note(self, **changes: Any) -> None:
        self.progress = dataclasses.replace(self.progress, **changes)
        self.progress.write(self._folder)


def survey(folder: Path) -> journal.Survey | None:
    """The journal in ``folder`` at a glance, with what the server does not have of it."""
    progress = DeliveryState.read(folder)
    return journal.survey(folder, progress.offset, progress.put_off)


def remove_if_done(folder: Path) -> bool:
    """Remove the journal of a FINISHED run that has been sent completely. Only for the holder of both its locks."""
    seen = survey(folder)
    done = seen is not None and seen.status == "FINISHED" and seen.lines == 0
    if done:
        shutil.rmtree(folder, ignore_errors=True)
    return done


def settle(folder: Path) -> None:
    """``remove_if_done``, unless the run's process still holds the journal: then that will do it."""
    with contextlib.suppress(files.FileError), files.lock(folder / journal.OWNER):
        remove_if_done(folder)
