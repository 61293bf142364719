"""``run``: the tracking interface of a stage."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from sglr import config, files
from sglr.tracking import costs, records, settings
from sglr.tracking.delivery import DeliveryState, remove_if_done
from sglr.tracking.journal import SENDER, Journal, claim, now, survey
from sglr.tracking.parents import ParentQuery
from sglr.tracking.sender import Sender
from sglr.tracking.server import connect
from sglr.tracking.settings import LOG
from sglr.tracking.values import TAG_LENGTH, texts

_WITH_SYSTEM_METRICS = ("warmup", "train")
# A run ended by a signal does not wait for a server; what is missing is sent when the run is resumed.
_WAIT_WHEN_KILLED = 5.0


class Tracker(Protocol):
    """The logging interface of a run. No call waits for a server, and none fails because of one."""

    def metrics(self, values: Mapping[str, Any], step: int = 0) -> None:
        """Numbers measured at ``step`` (an epoch); None means not measured.

        A name and step that the run already has are skipped, so a resumed run may repeat epochs. Raises TypeError for
        anything but numbers.
        """
        ...

    def artifact(self, path: str | Path, folder: str | None = None) -> None:
        """A file, kept in ``folder``; or a folder, whose contents go to ``folder`` (its own name when None)."""
        ...

    def tags(self, values: Mapping[str, Any]) -> None:
        """Tags, added to those the run has or replacing them."""
        ...

    def headline(self, values: Mapping[str, Any]) -> None:
        """Numbers that summarise the run (step 0); also set on its parent, where later runs override earlier ones."""
        ...


class NullTracker:
    """Tracks nothing."""

    def metrics(self, values: Mapping[str, Any], step: int = 0) -> None:
        """Nothing."""

    def artifact(self, path: str | Path, folder: str | None = None) -> None:
        """Nothing."""

    def tags(self, values: Mapping[str, Any]) -> None:
        """Nothing."""

    def headline(self, values: Mapping[str, Any]) -> None:
        """Nothing."""


@contextlib.contextmanager
def run(
    *,
    root: str | Path,
    experiment: str,
    stage: str,
    item: str,
    key: str,
    tags: Mapping[str, Any] | None = None,
    params: Mapping[str, Any] | None = None,
    parent: ParentQuery | None = None,
    record: Mapping[str, Any] | None = None,
    copy: str | None = None,
) -> Iterator[Tracker]:
    """Track one stage item as one MLflow run, called ``item``.

    An earlier run of the same item and ``key`` that failed or was killed is reopened; otherwise a new one begins.
    At the end it becomes FINISHED; KILLED after KeyboardInterrupt or an exit status of 128 and more (a signal);
    FAILED after any other exception. A process ended by SIGKILL leaves its run RUNNING until it is resumed or
    ``sync(root, end_interrupted=True)``.

    Leaving waits for what is still to be sent, ``SGLR_TRACKING_WAIT`` seconds (30) at most, 3 when the server has
    failed, 5 when KILLED; what is missing then is reported in one warning and sent by ``sync``. ``record`` (device,
    library versions), time and peak memory are added to ``.sglr/records/<item>.json``; a finished run has them as
    metrics too. With ``SGLR_TRACKING=off`` or without MLflow only that record is written. With
    ``SGLR_TRACKING=required`` a server that does not answer at the start is a ConfigError, as is a value of
    ``SGLR_TRACKING``, ``SGLR_TRACKING_WAIT`` or ``SGLR_SYSTEM_METRICS`` that is invalid. Apart from that, tracking
    problems are warnings, never exceptions. ``copy`` names the DVC experiment whose copy of the project this is: it
    becomes a tag, and the record lies in a folder of that name.
    """
    root = Path(root).absolute()
    if settings.required():
        _require_server(root)
    limit, system_metrics = settings.wait_limit(), stage in _WITH_SYSTEM_METRICS and settings.system_metrics()
    labels = texts({"stage": stage, **(tags or {}), **({"dvc_experiment": copy} if copy else {})}, TAG_LENGTH)
    header = {
        "experiment": experiment,
        "stage": stage,
        "item": item,
        "tags": labels,
        "parent": dataclasses.asdict(parent) if parent is not None else None,
        "copy": copy,
    }
    facts = {**(record or {}), "stage": stage, "experiment": experiment, "run_id": None}
    facts |= {name: labels.get(name) for name in ("method", "seed")}
    with contextlib.ExitStack() as stack:
        journal = _claim(stack, root, header, key) if settings.enabled() else None
        started, status = now(), "FINISHED"
        sender = None
        if journal is not None:
            journal.params(params or {})
            sender = _start(root, journal, system_metrics=system_metrics)
        try:
            yield journal if journal is not None else NullTracker()
        except BaseException as error:
            status = _status(error)
            raise
        finally:
            facts |= {"status": status, **costs.peak_memory()}
            if journal is not None and sender is not None:
                _end(root, header, journal, sender, facts, limit)
            else:
                records.write(root, header, facts, started=started, ended=now(), seconds=max(0, now() - started) / 1000)


def _require_server(root: Path) -> None:
    if not settings.installed():
        raise config.ConfigError("SGLR_TRACKING=required, but MLflow is not installed; install mlflow, or unset it.")
    try:
        connect(root)
    except Exception as error:  # whatever MLflow raises
        raise config.ConfigError(
            f"SGLR_TRACKING=required, but tracking at {settings.shown(settings.address(root))} fails"
            f" ({settings.shown(error)}). Start it; or unset SGLR_TRACKING: points then wait here for `sglr sync`."
        ) from None


def _claim(stack: contextlib.ExitStack, root: Path, header: dict[str, Any], key: str) -> Journal | None:
    try:
        return stack.enter_context(claim(root, header, key))
    except files.FileError as error:
        LOG.warning("%s is not tracked: %s", header["item"], error)
        return None


def _start(root: Path, journal: Journal, *, system_metrics: bool) -> Sender:
    # Here and not in the thread: the environment is not for threads to change.
    settings.prepare_environment()
    sender = Sender(root, journal.folder, system_metrics=system_metrics)
    journal.changed = sender.wake
    sender.start()
    return sender


def _status(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        code = error.code
        if code in (None, 0):
            return "FINISHED"
        return "KILLED" if isinstance(code, int) and code >= 128 else "FAILED"
    return "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"


def _end(
    root: Path, header: dict[str, Any], journal: Journal, sender: Sender, facts: dict[str, Any], limit: float
) -> None:
    """Close the journal, write the record, wait ``limit`` seconds for the sender, report what is missing."""
    if facts["status"] == "FINISHED":
        peaks = {f"memory/{name}": facts[name] for name in ("peak_mib", "peak_gpu_mib") if name in facts}
        journal.metrics({"seconds/total": round(journal.worked(), 3), **peaks})
    journal.append("end", status=facts["status"])
    facts |= {"run_id": DeliveryState.read(journal.folder).run_id, "journal": journal.id}
    records.write(root, header, facts, started=journal.started, ended=now(), seconds=journal.seconds)
    sender.finish(min(limit, _WAIT_WHEN_KILLED) if facts["status"] == "KILLED" else limit)
    progress = DeliveryState.read(journal.folder)
    records.complete(root, header, journal.id, progress.run_id)
    missing = survey(journal.folder, progress.offset, progress.put_off)
    if missing is None:
        LOG.warning("%s: its journal is gone or damaged; what was not sent yet is lost.", header["item"])
        return
    if missing.lines:
        said = "%s: %s are not on the tracking server (%s). `sglr sync` sends them."
        LOG.warning(said, header["item"], missing, sender.reason)
        return
    with contextlib.suppress(files.FileError), files.lock(journal.folder / SENDER):
        remove_if_done(journal.folder)
