"""What all benchmarks share: the head of a report, timing in turns, and one layout of tables."""

import contextlib
import datetime
import gc
import math
import os
import platform
import shlex
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
COLUMNS = (
    "what", "against", "reference, s", "ours, s", "ratio", "of single rounds", "a second", "GFLOP each",
    "share of matrix rate", "reserved memory, GB",
)  # fmt: skip
_NOTHING = "–"
# Set in the environment where a machine is there for minutes, and a number without parity is better than none.
GO_ON = "SGLR_BENCH_GO_ON"
# "wall", or "cpu" on a machine that others use: seconds of this process, which leave out those of a loader's workers.
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
_clock = ["wall"]


def use_clock(name: str) -> None:
    """Time with this clock from now on."""
    _clock[0] = name


def head(threads: int, device: torch.device) -> str:
    """Date, versions, machine and command, as a paragraph for RESULTS.md."""
    found = {name: _version(name) for name in ("torch", "dvc", "mlflow")}
    versions = ", ".join(f"{name} {version}" for name, version in found.items() if version is not None)
    command = shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    return (
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, {versions}, Python {platform.python_version()},"
        f" {machine(device)}, {threads} thread{'s' if threads > 1 else ''}, {_clock[0]} seconds; `{command}`"
    )


def _version(name: str) -> str | None:
    """None for what is not installed: most parts need neither DVC nor MLflow."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def machine(device: torch.device) -> str:
    """The class of hardware, without names of hosts."""
    cpu = f"{os.cpu_count()}-core {platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"
    if device.type != "cuda":
        return cpu
    return f"{torch.cuda.get_device_name(device)} (CUDA {torch.version.cuda}), {cpu}"


@dataclass(frozen=True)
class Times:
    """Medians of a reference and of ours, in seconds, and the ratios of single rounds, sorted."""

    reference: float | None
    ours: float
    ratios: tuple[float, ...] = ()

    @property
    def ratio(self) -> float | None:
        return None if self.reference is None else self.reference / self.ours


def in_turns(
    reference: Callable[[], object], ours: Callable[[], object], rounds: int, device: torch.device | None = None
) -> Times:
    """Time both, one after the other, ``rounds`` times after one round that does not count."""
    pairs = [(seconds(reference, device), seconds(ours, device)) for _ in range(rounds + 1)][1:]
    plain, own = (statistics.median(times) for times in zip(*pairs, strict=True))
    return Times(plain, own, tuple(sorted(first / second for first, second in pairs)))


def seconds(work: Callable[[], object], device: torch.device | None = None) -> float:
    """Seconds of one call, the device's included."""
    _wait(device)
    now = CLOCKS[_clock[0]]
    started = now()
    work()
    _wait(device)
    return now() - started


def reserved(work: Callable[[], object], device: torch.device) -> float | None:
    """GB that torch's allocator holds at most while this runs; None on a CPU.

    Not what is allocated: a CUDA graph that is replayed allocates nothing, and its memory would not be seen.
    """
    if device.type != "cuda":
        return None
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    work()
    return torch.cuda.max_memory_reserved(device) / 1e9


def _wait(device: torch.device | None) -> None:
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)


class Table:
    """A table in the one layout, printed row by row; columns without any value stay, so that tables can be joined."""

    def __init__(self, title: str) -> None:
        print(f"\n### {title}\n")
        print(f"| {' | '.join(COLUMNS)} |")
        print(f"|---|---|{'---:|' * (len(COLUMNS) - 2)}", flush=True)

    def row(
        self, what: str, against: str, times: Times, *, each: float = 1.0, images: float | None = None,
        gflop: float | None = None, share: float | None = None, memory: float | None = None,
    ) -> None:  # fmt: skip
        """One row. ``each``: what times are divided by (steps in a call); ``images``: in a call, for the rate."""
        plain = None if times.reference is None else times.reference / each
        single = f"{times.ratios[0]:.2f} to {times.ratios[-1]:.2f}" if times.ratios else None
        cells = (
            what, against, _number(plain), _number(times.ours / each), _fixed(times.ratio, 2), single,
            None if images is None else f"{images / times.ours:,.0f}", _fixed(gflop, 3),
            None if share is None else f"{100 * share:.0f}%", _fixed(memory, 2),
        )  # fmt: skip
        print(f"| {' | '.join(cell or _NOTHING for cell in cells)} |", flush=True)

    def empty(self, what: str, why: str) -> None:
        """A row that could not be measured here, with the reason."""
        print(f"| {what} | {why} |{f' {_NOTHING} |' * (len(COLUMNS) - 2)}", flush=True)


def _fixed(value: float | None, digits: int) -> str | None:
    return None if value is None else f"{value:.{digits}f}"


def _number(value: float | None) -> str | None:
    """Three significant digits at least."""
    if value is None:
        return None
    return f"{value:.{max(2, 2 - math.floor(math.log10(value)))}f}" if value > 0 else "0"


def require(agree: bool, what: str) -> None:
    """End where two forms do not give the same: then nothing is timed, unless ``GO_ON`` is set."""
    if agree:
        return
    if not os.environ.get(GO_ON):
        raise SystemExit(f"{what}: the two forms do not agree; nothing is timed.")
    print(f"NO PARITY, {what}: the two forms do not agree. What follows is timed all the same.", flush=True)


@contextlib.contextmanager
def apart(what: str) -> Iterator[None]:
    """Say an error of what is done in here and go on, where ``GO_ON`` is set: it loses nothing that comes after it."""
    try:
        yield
    except Exception as error:
        if not os.environ.get(GO_ON):
            raise
        traceback.print_exception(error)
        print(f"FAILED, {what}: {type(error).__name__}. What follows is done all the same.", flush=True)


def failed(table: "Table", what: str, error: Exception) -> None:
    """The row of a case that ended with an error, which loses no other row."""
    traceback.print_exception(error)
    table.empty(what, f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:150]}")


def forget_compiled(device: torch.device) -> None:
    """Let go of what was compiled: its CUDA graphs keep their memory as long as torch keeps them."""
    torch.compiler.reset()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
