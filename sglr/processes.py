"""This process and its device; helper processes, started and ended together; those that a launcher started."""

import contextlib
import ctypes
import io
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sglr.config import ConfigError
from sglr.config.errors import UserError

if TYPE_CHECKING:
    import torch


# Numbers in glibc's malloc.h of two limits: from what size on memory comes from the system each time, and goes back.
_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD = -3, -1
# What is asked for; the largest that older versions take.
_GIBIBYTE, _OLD_LIMIT = 2**30, 2**25
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


@dataclass(frozen=True)
class Launch:
    """This process's place among those that a launcher, such as torchrun, started."""

    rank: int
    size: int
    local_rank: int
    local_size: int = 1
    """How many there are on this machine, where the launcher says so."""


def launched() -> Launch | None:
    """The launcher's environment: RANK, WORLD_SIZE and LOCAL_RANK; None without a launcher, or alone under it.

    Raises ConfigError when they are inconsistent.
    """
    found = [os.environ.get(name) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")]
    if found[0] is None or found[1] is None:
        return None
    try:
        rank, size = int(found[0]), int(found[1])
        local = int(found[2] or (0 if size == 1 else -1))
    except ValueError:
        rank = size = local = -1
    if found[2] is None and size > 1:
        raise ConfigError("RANK and WORLD_SIZE are set and LOCAL_RANK is not (0 where each machine has one process)")
    if not 0 <= rank < size or not 0 <= local < size:
        raise ConfigError(
            f"RANK={found[0]}, WORLD_SIZE={found[1]} and LOCAL_RANK={found[2]}: 0 <= RANK < WORLD_SIZE and 0 <="
            " LOCAL_RANK < WORLD_SIZE is expected"
        )
    beside = os.environ.get("LOCAL_WORLD_SIZE", "")
    return Launch(rank, size, local, int(beside) if beside.isdecimal() else 1) if size > 1 else None


def device(asked: str, called: str = "SGLR_DEVICE") -> "torch.device":
    """The device that ``asked`` stands for: cpu, cuda, cuda:1 ..., or "auto", a GPU where there is one, else the CPU.

    Raises ConfigError for any other, and for a GPU that does not exist; ``called``: the setting's name in messages.
    """
    import torch

    if asked == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(asked)
    except RuntimeError:
        raise ConfigError(f"{called}={asked!r} is not a device; use auto, cpu, cuda or cuda:<number>.") from None
    if found.type not in ("cpu", "cuda"):
        raise ConfigError(
            f"{called}={asked!r} is not supported; use auto, cpu, cuda or cuda:<number>."
            + (" Apple's GPUs have no float64, which training sums in." if found.type == "mps" else "")
        )
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        there = torch.cuda.device_count()
        raise ConfigError(f"{called}={asked!r} requests a GPU, but torch sees {there}. Use {called}=cpu or auto.")
    return found


def count(asked: str, device: "torch.device", called: str = "SGLR_NPROC") -> int:
    """How many processes ``asked`` stands for: a number, or "auto", one per GPU and one on a CPU.

    Raises ConfigError for anything else; ``called``: the setting's name in messages.
    """
    if asked == "auto":
        import torch

        return max(1, torch.cuda.device_count()) if device.type == "cuda" and device.index is None else 1
    if not asked.isascii() or not asked.isdigit() or int(asked) < 1:
        raise ConfigError(f"{called}={asked!r} is not a number of processes; use auto, 1, 2 ...")
    return int(asked)


def device_of(rank: int, device: "torch.device") -> "torch.device":
    """The device of one of several processes: where no GPU was named, they take turns."""
    import torch

    if device.type != "cuda" or device.index is not None:
        return device
    return torch.device("cuda", rank % torch.cuda.device_count())


def keep_freed_memory() -> None:
    """From now on memory that tensors leave is kept for the next ones, not given back to the system in between.

    Else a step on a CPU may spend a sixth to half of its time on getting the same pages anew, and how much depends on
    what the process allocated before. With glibc, for tensors below 1 GiB (32 MiB in older versions); nothing
    elsewhere.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        # The second alone would make it worse: glibc then stops adapting the first, which is small.
        if mallopt is not None and any(mallopt(_M_MMAP_THRESHOLD, size) for size in (_GIBIBYTE, _OLD_LIMIT)):
            mallopt(_M_TRIM_THRESHOLD, _GIBIBYTE)


def cores() -> int:
    """How many cores this process may use: those it is bound to, and no more than its container's share of them."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(bound, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no such file, or no limit ("max")
        return bound


def print_anything() -> None:
    """From now on characters that the output's encoding lacks, such as a minus sign, are printed as ``?``."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")


def let_threads_sleep() -> None:
    """OpenMP's threads wait for the next operation for a moment and then sleep, unless the user set how they wait.

    Asleep at once, two are slower than one on small networks; waiting for long, as is usual, they make a busy machine
    many times slower. To be called before torch is imported.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ.setdefault("GOMP_SPINCOUNT", "4000")


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
