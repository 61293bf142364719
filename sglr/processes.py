"""Helper processes on this machine: started together, ended together."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.queues import SimpleQueue
from typing import TYPE_CHECKING, Any

from sglr.config import ConfigError
from sglr.files import FileError

if TYPE_CHECKING:
    import torch


class ProcessError(RuntimeError):
    """A helper process that failed, and what it said."""


def count(asked: str, device: "torch.device") -> int:
    """How many processes ``asked`` stands for: a number, or "auto", one per GPU and one on a CPU.

    Raises ConfigError for anything else.
    """
    if asked == "auto":
        import torch

        return max(1, torch.cuda.device_count()) if device.type == "cuda" and device.index is None else 1
    if not asked.isascii() or not asked.isdigit() or int(asked) < 1:
        raise ConfigError(f"SGLR_NPROC={asked!r} is no number of processes; use auto, 1, 2 ...")
    return int(asked)


def device_of(rank: int, device: "torch.device") -> "torch.device":
    """The device of one of several processes: where no GPU was named, they take turns."""
    import torch

    if device.type != "cuda" or device.index is not None:
        return device
    return torch.device("cuda", rank % torch.cuda.device_count())


@contextlib.contextmanager
def alongside(helpers: int, work: Callable[..., None], *arguments: Any) -> Iterator[None]:
    """Run ``work(rank, *arguments)`` for rank 1 to ``helpers`` in new processes while the block, rank 0, runs.

    They are waited for at the end of the block, and ended at once if it fails or this process dies. ``work`` and its
    arguments must be picklable. Raises ProcessError if one of them fails.
    """
    context = multiprocessing.get_context("spawn")
    said: SimpleQueue[str] = context.SimpleQueue()
    processes = [
        context.Process(target=_run, args=(said, rank, work, arguments), daemon=True) for rank in range(1, helpers + 1)
    ]
    try:
        for process in processes:
            process.start()
        yield
        for rank, process in enumerate(processes, start=1):
            process.join()
            if process.exitcode:
                reason = f": {said.get()}" if not said.empty() else f" with status {process.exitcode}"
                raise ProcessError(f"process {rank} of {helpers + 1} failed{reason}. Run it again to continue.")
    finally:
        for process in processes:
            if process.pid is not None:
                process.kill()
                process.join()


def _run(said: "SimpleQueue[str]", rank: int, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    # Ctrl-C reaches the whole group; the first process decides what becomes of it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        work(rank, *arguments)
    except Exception as error:
        if not isinstance(error, ConfigError | FileError):
            traceback.print_exc()
        said.put(str(error) or type(error).__name__)
        sys.exit(1)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
