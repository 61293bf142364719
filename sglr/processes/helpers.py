"""Helper processes, started together and ended together."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from multiprocessing.queues import SimpleQueue
from typing import Any

from sglr.config.errors import UserError
from sglr.processes.settings import keep_freed_memory

# The longest error that a helper sends: nobody reads its pipe, which holds little, before it has ended.
_LONGEST = 4000
# How long the first process has to find out by itself that another one failed.
_GRACE = 30.0
# After its own error, how long it checks whether the end of another process caused it.
_MOMENT = 2.0
# Both reach the whole group; the first process decides how it ends.
_ENDING = (signal.SIGINT, signal.SIGTERM)


class ProcessError(UserError, RuntimeError):
    """A helper process failed; the message holds its error."""


@contextlib.contextmanager
def alongside(helpers: int, work: Callable[..., None], *arguments: Any) -> Iterator[None]:
    """Run ``work(rank, *arguments)`` for rank 1 to ``helpers`` in new processes while the block, rank 0, runs.

    They are waited for at the end of the block, and ended at once if it fails or this process dies. ``work`` and its
    arguments must be picklable. Raises ProcessError if one of them fails; where the block waits for the one that failed
    in a place that no error reaches, this process ends with its message.
    """
    context = multiprocessing.get_context("spawn")
    said: SimpleQueue[str] = context.SimpleQueue()
    processes: list[BaseProcess] = [
        context.Process(target=_run, args=(said, rank, work, arguments), daemon=True) for rank in range(1, helpers + 1)
    ]
    guard = _Guard(processes, said)
    try:
        with _signals_held():
            for process in processes:
                process.start()
        threading.Thread(target=guard.watch, daemon=True).start()
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            # All this process may know of another one's end is that a connection is closed.
            wait([process.sentinel for process in processes], timeout=_MOMENT)
            failed = guard.failure()
            if failed is not None:
                raise failed from error
            raise
        for process in processes:
            wait([process.sentinel])
        failed = guard.failure()
        if failed is not None:
            raise failed
    finally:
        guard.end()


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Signals that end this process come after the block; to those that it starts, once they are ready for them.

    The resource tracker of multiprocessing lets them through when it starts, as it does with the first queue.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Guard:
    """Knows how the helpers ended; one thread at a time, since the system reports it once."""

    def __init__(self, processes: list[BaseProcess], said: "SimpleQueue[str]") -> None:
        self._processes, self._said = processes, said
        self._lock, self._over = threading.Lock(), threading.Event()

    def failure(self) -> ProcessError | None:
        """The first that failed, with its error."""
        with self._lock:
            for rank, process in enumerate(self._processes, start=1):
                if wait([process.sentinel], timeout=0):
                    process.join()  # its pipes close a moment before it can be asked how it ended
                if process.exitcode:
                    reason = f": {self._said.get()}" if not self._said.empty() else f" with status {process.exitcode}"
                    whom = f"process {rank} of {len(self._processes) + 1}"
                    return ProcessError(f"{whom} failed{reason}. Run it again to continue.")
        return None

    def watch(self) -> None:
        """End this process when a helper failed and it does not notice: a GPU waits for the others without end."""
        left = [process.sentinel for process in self._processes]
        while left and not self._over.wait(0.1):
            ended = wait(left, timeout=1)
            left = [sentinel for sentinel in left if sentinel not in ended]
            if ended and not self._over.wait(_GRACE):
                failed = self.failure()
                if failed is not None:
                    print(f"Error: {failed}", file=sys.stderr, flush=True)
                    os._exit(1)

    def end(self) -> None:
        """End all that are left."""
        self._over.set()
        with self._lock:
            for process in self._processes:
                if process.pid is not None:
                    process.kill()
                    process.join()


def _run(said: "SimpleQueue[str]", rank: int, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    for number in _ENDING:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    keep_freed_memory()
    status = 0
    try:
        work(rank, *arguments)
    except Exception as error:
        if not isinstance(error, UserError):
            traceback.print_exc()
        said.put((str(error) or type(error).__name__)[:_LONGEST])
        status = 1
    # Not by the interpreter's own end, in which torch 2.11 aborts now and then although all is done.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
