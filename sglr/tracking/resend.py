"""``sync``: send what earlier runs could not."""

from dataclasses import dataclass, field
from pathlib import Path

from sglr import files
from sglr.tracking import journal, parents, settings
from sglr.tracking.delivery import settle, survey
from sglr.tracking.server import Server, connect


@dataclass
class SyncReport:
    """The results of ``sync``. Items are given by name; ``sent`` and ``missing`` count points and files."""

    sent: int = 0
    missing: int = 0
    items: list[str] = field(default_factory=list)
    """Sent completely."""
    running: list[str] = field(default_factory=list)
    """Skipped, because a process is working on them."""
    interrupted: list[str] = field(default_factory=list)
    """Killed; still RUNNING on the server until resumed, or ended with ``end_interrupted``."""
    failed: dict[str, str] = field(default_factory=dict)
    """Not completely sent, and why."""

    def __str__(self) -> str:
        lines = [f"{self.sent} points and files sent, {self.missing} missing."]
        lines += [f"{item}: sent completely" for item in self.items]
        lines += [f"{item}: skipped, a process is working on it" for item in self.running]
        lines += [f"{item}: interrupted; running it again resumes it" for item in self.interrupted]
        lines += [f"{item}: not completely sent: {reason}" for item, reason in self.failed.items()]
        return "\n".join(lines)


def sync(root: str | Path, *, end_interrupted: bool = False) -> SyncReport:
    """Send everything in the journals under ``root`` that the server does not have.

    With ``end_interrupted``, runs whose process was killed are marked KILLED (running them again still
    reopens them); without it they are sent and stay RUNNING. When nothing is missing, MLflow is not even imported.
    Failures are in the report.
    """
    root = Path(root).absolute()
    sending = _Sync(root, SyncReport())
    # Runs below others last: their parents would be sent on the way, and not be counted.
    for folder in sorted(journal.folders(root), key=_has_parent):
        sending.visit(folder, end_interrupted)
    return sending.report


def unsent(root: str | Path) -> int:
    """How many journals under ``root`` hold something that the server does not have."""
    surveys = map(survey, journal.folders(Path(root).absolute()))
    return sum(seen is not None and seen.lines > 0 for seen in surveys)


def _has_parent(folder: Path) -> bool:
    first, _ = next(journal.read(folder), ({}, 0))
    return bool(first.get("parent"))


class _Sync:
    def __init__(self, root: Path, report: SyncReport) -> None:
        self.report = report
        self._root = root
        self._server: Server | None = None
        self._down = ""

    def visit(self, folder: Path, end_interrupted: bool) -> None:
        """Send one journal, if there is something to send and no process is working on it."""
        if (seen := survey(folder)) is None:
            return
        item = seen.header["item"]
        try:
            with files.lock(folder / journal.OWNER):
                if end_interrupted and seen.status is None:
                    journal.mark_killed(folder)
        except files.FileError:
            self.report.running.append(item)
            return
        if (seen := survey(folder)) is None:
            return
        if seen.status is None:
            self.report.interrupted.append(item)
        if seen.lines:
            self._send(folder, seen)
        elif seen.status == "FINISHED":
            settle(folder)

    def _send(self, folder: Path, seen: journal.Survey) -> None:
        item = seen.header["item"]
        if not self._down:
            try:
                with files.lock(folder / journal.SENDER, holder="another `sglr sync`"):
                    reason = parents.send_whole(self._root, folder, self._connected())
                if reason:
                    self.report.failed[item] = reason
                else:
                    self.report.items.append(item)
            except Exception as error:  # whatever MLflow raises: the next journal may fare better
                self.report.failed[item] = settings.shown(error)
                self._check_answer(error)
        else:
            self.report.failed[item] = self._down
        left = survey(folder)
        missing = left.points + left.files if left else 0
        self.report.missing += missing
        self.report.sent += seen.points + seen.files - missing

    def _connected(self) -> Server:
        if self._server is None:
            if not settings.installed():
                raise RuntimeError("there are runs to send, but MLflow is not installed; install mlflow.")
            self._server = connect(self._root)
        return self._server

    def _check_answer(self, error: Exception) -> None:
        """Without a server that answers, skip the other journals: each would wait for it again."""
        try:
            self._connected().check()
        except Exception:
            self._down = settings.shown(error)
