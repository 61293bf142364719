"""The thread that sends a run's journal during the run. No error in it ever reaches the run."""

import contextlib
import importlib.util
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from sglr import files
from sglr.tracking import journal, parents
from sglr.tracking.server import connect
from sglr.tracking.settings import LOG, address, shown

# Seconds: to let points gather into a batch; the first and the longest pause after a failure; the pause between the
# last attempts; how long a run that ends waits for a server that has already failed.
_GATHER = 0.2
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
_LAST_PAUSE = 0.5
_WAIT_AFTER_FAILURE = 3.0


class Sender(threading.Thread):
    """Sends one journal until told to finish. A daemon: it never keeps a process alive."""

    def __init__(self, root: Path, folder: Path, *, system_metrics: bool) -> None:
        super().__init__(name="sglr-tracking", daemon=True)
        self.reason = ""
        self._root = root
        self._folder = folder
        self._system_metrics = system_metrics
        self._news = threading.Event()
        self._closing = threading.Event()
        self._abandoned = threading.Event()
        self._failures = 0

    def wake(self) -> None:
        """Signal that there is something new in the journal."""
        self._news.set()

    def finish(self, limit: float) -> None:
        """Send what is left, at most ``limit`` seconds; ``reason`` says why some of it could not be sent."""
        began = time.monotonic()
        self._closing.set()
        self._news.set()
        while self.is_alive():
            allowed = min(limit, _WAIT_AFTER_FAILURE) if self._failures else limit
            if time.monotonic() - began >= allowed:
                self._abandoned.set()
                self.reason = self.reason or f"not done after {allowed:g} s"
                return
            self.join(0.05)

    def run(self) -> None:
        """Connect and send, retrying after failures with growing pauses."""
        while not self._abandoned.is_set():
            try:
                self._work()
                return
            except Exception as error:  # whatever a server or MLflow does must not reach the run
                self._failed(error)
            if self._closing.is_set():
                self._abandoned.wait(_LAST_PAUSE)
            else:
                self._closing.wait(min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** (self._failures - 1)))

    def _work(self) -> None:
        with files.lock(self._folder / journal.SENDER, timeout=_WAIT_AFTER_FAILURE, holder="`sglr sync`"):
            server = connect(self._root)
            delivery = parents.delivery(self._root, self._folder, server)
            more = delivery.step()
            run_id = delivery.progress.run_id
            with _system_metrics(run_id, server.uri) if self._system_metrics and run_id else contextlib.nullcontext():
                while True:
                    # In this order: what comes after the clearing wakes the wait below.
                    self._news.clear()
                    closing = self._closing.is_set()
                    while more:
                        more = delivery.step()
                    self._recovered()
                    if closing:
                        self.reason = delivery.drain()
                        return
                    self._news.wait()
                    self._closing.wait(_GATHER)
                    more = True

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        self.reason = shown(error)
        if self._failures == 1 and not self._closing.is_set():
            LOG.warning(
                "tracking at %s fails (%s). The run continues; its points wait in %s.",
                shown(address(self._root)),
                self.reason,
                self._folder,
            )

    def _recovered(self) -> None:
        if self._failures:
            LOG.info("tracking at %s works again", shown(address(self._root)))
            self._failures = 0
            self.reason = ""


@contextlib.contextmanager
def _system_metrics(run_id: str, uri: str) -> Iterator[None]:
    """CPU, memory and GPU use as metrics of the run while the block lasts; whatever fails in it is ignored.

    Needs psutil. These points are not journalled: those measured without a server are lost.
    """
    monitor = None
    if importlib.util.find_spec("psutil"):
        with contextlib.suppress(Exception):
            from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

            monitor = SystemMetricsMonitor(run_id, resume_logging=True, tracking_uri=uri)
            monitor.start()
    try:
        yield
    finally:
        with contextlib.suppress(Exception):
            if monitor is not None:
                monitor.finish()
