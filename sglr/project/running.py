"""Items that a process is working on, and their progress: from locks, processes and journals."""

import contextlib
import itertools
import json
import os
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_RECENT_EPOCHS = 5


@dataclass(frozen=True)
class Progress:
    """Progress of a running item: seconds since its process started; for a tracked training the last completed epoch,
    the number of epochs, and an estimate of the seconds left. None where unknown."""

    seconds: float | None = None
    epoch: int | None = None
    epochs: int | None = None
    seconds_left: float | None = None

    def __str__(self) -> str:
        if self.epoch is None:
            return "" if self.seconds is None else f"for {in_words(self.seconds)}"
        text = f"epoch {self.epoch}" + (f" of {self.epochs}" if self.epochs else "")
        return text + ("" if self.seconds_left is None else f", about {in_words(self.seconds_left)} left")


def processes_at_work(root: Path) -> dict[str, tuple[bool, Progress]]:
    """Items that a process is working on: whether the pipeline that started it is gone, and its progress."""
    found = {}
    for path in sorted((root / ".sglr" / "locks").glob("*.lock")):
        if held(path):
            item = path.name.removesuffix(".lock")
            process = _process(root, item)
            found[item] = (process is not None and _left_alone(process), progress(root, item, process))
    return found


def held(path: Path) -> bool:
    """Whether a process holds the lock in a file."""
    from filelock import FileLock, Timeout

    try:
        with FileLock(path).acquire(timeout=0):
            return False
    except Timeout:
        return True
    except OSError:
        return False


def _process(root: Path, item: str) -> Any:
    """The process of a running item; None when unknown."""
    import psutil

    stage, _, rest = item.partition("@")
    tail = [f"stages.{stage}", *(rest.rsplit("-", 1) if "-" in rest else [rest] if rest else [])]
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.cmdline()[-len(tail) :] == tail and Path(process.cwd()) == root.resolve():
                return process
    return None


def _left_alone(process: Any) -> bool:
    """Whether DVC started the process and is no longer among its parents."""
    import psutil

    with contextlib.suppress(psutil.Error, OSError):
        if "DVC_STAGE" in process.environ():
            return not any("dvc" in " ".join(parent.cmdline()) for parent in process.parents())
    return False


def progress(root: Path, item: str, process: Any) -> Progress:
    """Progress of an item, from its process and, for a training, its journal."""
    elapsed = None if process is None else max(0.0, time.time() - process.create_time())
    stage = item.partition("@")[0]
    folders: list[Path] = []
    with contextlib.suppress(OSError):  # a stage removes its own when it ends
        folders = sorted((root / ".sglr" / "journal").glob(f"{item}-*"), key=os.path.getmtime)
    if stage not in ("warmup", "train") or not folders:
        return Progress(elapsed)
    epoch, epochs, moments = _trained(folders[-1] / "journal.jsonl", stage)
    if not epoch:
        return Progress(elapsed)
    return Progress(elapsed, epoch, epochs or None, _seconds_left(epochs - epoch, moments) if epochs else None)


def _trained(journal: Path, stage: str) -> tuple[int, int, list[int]]:
    """The last epoch of a training that a journal has, how many there are to be (0 where unknown), and when those
    trained by this stage were logged, in ms since 1970."""
    epoch, epochs, shift, taken_over, moments = 0, 0, 0, 0, list[int]()
    # Half a line, or a damaged one: what came before it counts.
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        for line in journal.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            if record["kind"] == "params":
                values = record["values"]
                epochs = int(values.get("train.epochs" if stage == "train" else "warmup.epochs", 0))
                adversarial = values.get("warmup.objective") == "adversarial"
                if stage == "train" and adversarial:
                    taken_over = int(values.get("warmup.epochs", 0))
                # A natural warm-up's epochs end at 0.
                shift = epochs if stage == "warmup" and not adversarial else 0
            elif record["kind"] == "metrics" and "train/loss" in record["values"]:
                epoch = max(epoch, int(record["step"]) + shift)
                # Epochs of the warm-up are logged at once when the training takes them over.
                if stage == "warmup" or int(record["step"]) > taken_over:
                    moments.append(int(record["t"]))
    return epoch, epochs, moments


def _seconds_left(epochs: int, moments: list[int]) -> float | None:
    """An estimate for so many more epochs, from when earlier ones ended, in ms since 1970; None where these are few."""
    if len(moments) < 2:
        return None
    # The median of the last few: a resumed run stood still between two of them.
    recent = moments[-_RECENT_EPOCHS - 1 :]
    each = statistics.median(later - sooner for sooner, later in itertools.pairwise(recent)) / 1000
    return max(0.0, each * epochs - max(0.0, time.time() - moments[-1] / 1000))


def in_words(seconds: float) -> str:
    """A time in words: '45 s', '12 min', '2.5 h'."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
