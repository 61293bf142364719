"""The orderly end of a stage: signals, and the death of the pipeline that started it."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

# Between DVC and a stage, where they do not become their last command.
SHELLS = ("ash", "bash", "busybox", "csh", "dash", "fish", "ksh", "mksh", "sh", "tcsh", "zsh")


class Stopped(SystemExit):
    """A signal, or the death of the pipeline that started this stage, ends it; status 128 + signal."""

    def __init__(self, reason: str, status: int) -> None:
        super().__init__(status)
        self.reason = reason


class Watch:
    """Turns SIGTERM, Ctrl-C and the death of the pipeline's process into an orderly end.

    While ``graceful`` is set, the work itself asks ``reason`` and ends after a snapshot; otherwise Stopped is raised
    where the main thread is.
    """

    def __init__(self) -> None:
        self.graceful = False
        self.reason: str | None = None
        self._status = 0
        self._end = threading.Event()
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "Watch":
        for number in (signal.SIGTERM, signal.SIGINT):
            self._previous[number] = signal.signal(number, self._on_signal)
        alive = _pipeline_alive()
        if alive is not None:
            threading.Thread(target=partial(self._follow, alive), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raise Stopped if a stop was requested meanwhile."""
        if self.reason is not None:
            raise Stopped(self.reason, self._status)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.reason is None:
            self.reason = f"stopped by {signal.Signals(number).name}; run it again to continue"
            self._status = 128 + number
        if not self.graceful:
            self.check()

    def _follow(self, alive: Callable[[], bool]) -> None:
        while alive():
            if self._end.wait(0.5):
                return
        self.reason = "the pipeline that started this stage is gone; stopping. Run it again to continue"
        self._status = 128 + signal.SIGTERM
        os.kill(os.getpid(), signal.SIGTERM)


def _pipeline_alive() -> Callable[[], bool] | None:
    """A function that says whether the DVC process that started this stage lives; None when DVC did not start it."""
    if "DVC_STAGE" not in os.environ:
        return None
    import psutil

    watched, pipeline = [], None
    for process in psutil.Process().parents():
        watched.append(process)
        with contextlib.suppress(psutil.Error):
            if process.name() not in SHELLS:
                pipeline = process
                break
    if pipeline is None or _takes_orphans(pipeline):
        return lambda: False  # DVC was gone before this could look
    own_parent = os.getppid()
    return lambda: os.getppid() == own_parent and all(_runs(process) for process in watched)


def _takes_orphans(process: Any) -> bool:
    """Whether a process is the system's first, which takes over orphans. In a container, DVC itself may be that."""
    import psutil

    first = process.pid == 1
    try:
        first = first or process.name() in ("systemd", "launchd")
        return first and not any(name in " ".join(process.cmdline()) for name in ("dvc", "python"))
    except psutil.AccessDenied:  # macOS shows launchd's to root alone
        return first
    except psutil.Error:
        return False


def _runs(process: Any) -> bool:
    import psutil

    try:
        return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
