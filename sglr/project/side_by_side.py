"""Items of a study that do not wait for each other, run side by side, each by a DVC process of its own."""

import contextlib
import fcntl
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from sglr import files, processes
from sglr.config import ConfigError
from sglr.config.wording import some
from sglr.project.items import Item, read_items
from sglr.project.order import in_order, upstream_of
from sglr.project.status import status

LOGS = Path(".sglr", "logs")
"""What each item said when it ran last, by its name. Whoever works on an item has its file locked."""
Outcome = Literal["ran", "cached", "unchanged", "failed", "stopped", "busy"]
_LOOKS = 0.1  # seconds between two looks at those that are at work
# Seconds: how long one that commits is waited for before all are stopped, and a stage that is left without its DVC.
_COMMIT, _SNAPSHOT = 10.0, 60.0
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class ToRun:
    """Items that are not done, each after those it depends on; by item of the study, those it depends on directly."""

    items: list[Item]
    upstream: dict[str, set[str]]


@dataclass(frozen=True)
class Ended:
    """An item that came to its end: it ran, came from DVC's cache, needed nothing, failed, was stopped with this, or
    was not begun because another process is busy with it."""

    item: str
    outcome: Outcome
    seconds: float
    log: Path


@dataclass(frozen=True)
class Told:
    """Who is told of what: an item and its device (None: the environment's) when it starts, how it ended, several times
    a second which are at work and for how many seconds, and which are asked to stop."""

    start: Callable[[str, str | None], object] = lambda item, device: None
    end: Callable[[Ended], object] = lambda ended: None
    meanwhile: Callable[[dict[str, float]], object] = lambda at_work: None
    stopping: Callable[[list[str]], object] = lambda items: None


@dataclass
class _AtWork:
    item: str
    device: str | None
    process: subprocess.Popen[bytes]
    log: Path
    since: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.since

    def ended(self, bad: Outcome = "failed") -> Ended:
        return Ended(self.item, bad if self.process.returncode else self._good(), self.seconds, self.log)

    def _good(self) -> Outcome:
        said = self.log.read_text(encoding="utf-8", errors="replace")
        if f"Running stage '{self.item}'" in said:
            return "ran"
        return "cached" if f"Stage '{self.item}' is cached" in said else "unchanged"


def to_run(root: Path, wanted: Sequence[str] = ()) -> ToRun:
    """What is not done of the items wanted and what they depend on; by default of all. A stage's name stands for its
    items.

    Raises FileError for a name that the study does not have, and while another process is at work on one of them;
    FileError and ConfigError as ``status``.
    """
    items = read_items(root)
    upstream = upstream_of(items)
    asked: set[str] = set()
    for name in wanted:
        meant = {item.name for item in items if name in (item.name, item.stage)}
        if not meant:
            raise files.FileError(
                f"the study has no item {name!r}; `sglr status` lists them (experiment.methods and experiment.seeds"
                " decide)."
            )
        asked |= meant
    ordered = in_order(items, upstream)
    for item in reversed(ordered):
        if item.name in asked:
            asked |= upstream[item.name]
    ordered = [item for item in ordered if item.name in asked or not wanted]
    states = {one.item: one.state for one in status(root)}
    busy = [item.name for item in ordered if states[item.name] in ("running", "orphaned") or _busy(root, item.name)]
    if busy:
        raise files.FileError(
            f"another process is at work on {some(busy, 3)}: wait for it, or stop it, then run this again."
        )
    return ToRun([item for item in ordered if states[item.name] != "done"], upstream)


def places(jobs: int | None, threads: int) -> list[str | None]:
    """A value of SGLR_DEVICE for each of ``jobs`` items at once, None where the environment's is right.

    By default one for each GPU, or on a CPU for each ``threads`` cores; one where the environment names a GPU or lets
    several processes share an item. More than there are GPUs share them. Raises ConfigError for an environment that
    cannot be, and for several items of which each would take the same GPUs.
    """
    device = processes.device(os.environ.get("SGLR_DEVICE", "auto"))
    asked = os.environ.get("SGLR_NPROC", "auto")
    shared = asked != "auto" and processes.count(asked, device) > 1
    if shared and (jobs or 1) > 1 and device.type == "cuda":
        raise ConfigError(
            f"SGLR_NPROC={asked} and {jobs} jobs: each item would use the same GPUs; leave one of them out."
        )
    if device.type != "cuda" and not shared:
        return [None] * (jobs or max(1, processes.cores() // threads))
    if shared or device.index is not None:
        return [None] * (jobs or 1)
    import torch

    gpus = torch.cuda.device_count()
    # One alone has all GPUs, as under `dvc repro`.
    return [None] if (jobs or gpus) == 1 else [f"cuda:{place % gpus}" for place in range(jobs or gpus)]


def run(root: Path, study: ToRun, devices: Sequence[str | None], told: Told = Told()) -> tuple[list[str], list[str]]:
    """Run items by ``dvc repro --single-item``, as many at once as there are ``devices``, each after all those it
    depends on; return those that failed, and those left out because they depend on them.

    devices: a value of SGLR_DEVICE for each place, or None to leave the environment's. What an item prints goes to
    ``LOGS``. Ctrl-C, SIGTERM and SIGHUP stop all, which write their snapshots, and become KeyboardInterrupt or
    SystemExit once they have ended. The results are those of ``dvc repro``, and the entries of dvc.lock, in whatever
    order they end. Raises FileError without DVC, and beside another call in this project.
    """
    if importlib.util.find_spec("dvc") is None:
        raise files.FileError('DVC is not installed here: pip install -e ".[pipeline]".')
    waiting, at_work, failed = list(study.items), list[_AtWork](), list[str]()
    with files.lock(root / LOGS / ".lock", holder="another `sglr run`"), _signals_noted() as signals:
        try:
            while (waiting or at_work) and not signals:
                free = list(devices)
                for one in at_work:
                    free.remove(one.device)
                still = {item.name for item in waiting} | {one.item for one in at_work}
                for item in [item for item in waiting if not study.upstream[item.name] & still][: len(free)]:
                    waiting.remove(item)
                    begun = _started(root, item.name, free[0])
                    if begun is None:
                        failed.append(item.name)
                        told.end(Ended(item.name, "busy", 0.0, root / LOGS / f"{item.name}.log"))
                        continue
                    at_work.append(begun)
                    told.start(item.name, free.pop(0))
                for one in [one for one in at_work if one.process.poll() is not None]:
                    at_work.remove(one)
                    ended = one.ended()
                    failed += [one.item] if ended.outcome == "failed" else []
                    told.end(ended)
                waiting = _without(waiting, failed, study.upstream)
                told.meanwhile({one.item: one.seconds for one in at_work})
                time.sleep(_LOOKS)
        finally:
            _stop(root, at_work, told)
    if signals:
        raise KeyboardInterrupt if signals[0] == signal.SIGINT else SystemExit(128 + signals[0])
    kept = {item.name for item in _without(study.items, failed, study.upstream)}
    return failed, [item.name for item in study.items if item.name not in kept and item.name not in failed]


def _without(items: list[Item], failed: Sequence[str], upstream: dict[str, set[str]]) -> list[Item]:
    """Those that did not fail, and do not depend on one that did, in whatever many steps."""
    lost = set(failed)
    for item in items:  # each after those it depends on
        if upstream[item.name] & lost:
            lost.add(item.name)
    return [item for item in items if item.name not in lost]


def _started(root: Path, item: str, device: str | None) -> _AtWork | None:
    """DVC at work on one item, in a process group of its own: what stops all reaches each of them once, from here.
    None where another process is at work on it.

    Its log is locked as long as it or its stage has it open, even if this process is killed.
    """
    environment = dict(os.environ)
    if device is not None:
        environment["SGLR_DEVICE"] = device
    ours = str(Path(sys.executable).parent)
    # Stages are started as `python`, which must be the one that has what they need.
    if ours not in environment.get("PATH", "").split(os.pathsep):
        environment["PATH"] = os.pathsep.join([ours, environment.get("PATH", os.defpath)])
    log = root / LOGS / f"{item}.log"
    with log.open("ab") as output:
        try:
            fcntl.flock(output, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        output.truncate(0)
        process = subprocess.Popen(
            # Others take DVC's lock for moments, and may read many files under it.
            [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item", item],
            cwd=root, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            process_group=0,
        )  # fmt: skip
    return _AtWork(item, device, process, log)


def _busy(root: Path, item: str) -> bool:
    """Whether a process that ``_started`` began has an item's log open."""
    try:
        with (root / LOGS / f"{item}.log").open("rb") as log:
            fcntl.flock(log, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _stop(root: Path, at_work: list[_AtWork], told: Told) -> None:
    """Ask all to stop, and wait until they have ended: they may have a snapshot to write."""
    if not at_work:
        return
    with contextlib.suppress(OSError):  # nobody reads it any more
        told.stopping([one.item for one in at_work])
    with _nobody_commits(root):
        for one in at_work:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(one.process.pid, signal.SIGINT)
    for one in at_work:
        one.process.wait()
        until = time.monotonic() + _SNAPSHOT
        while _busy(root, one.item) and time.monotonic() < until:  # its stage, where DVC did not wait for it
            time.sleep(_LOOKS)
        with contextlib.suppress(OSError):
            told.end(one.ended("stopped"))


@contextlib.contextmanager
def _nobody_commits(root: Path) -> Iterator[None]:
    """Hold DVC's lock, under which it empties dvc.lock and writes it anew: stopped there it leaves an empty file.

    Where it is not to be had within some seconds, or lies elsewhere, the block runs without it.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            lock = stack.enter_context((root / ".dvc" / "tmp" / "lock").open("ab"))
            until = time.monotonic() + _COMMIT
            while time.monotonic() < until:
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                time.sleep(_LOOKS / 10)
        yield


@contextlib.contextmanager
def _signals_noted() -> Iterator[list[int]]:
    """Signals that ask to end, as they come in the block; those that are ignored (nohup) still are.

    SIGINT is ignored by what a script starts in the background. What this starts could then not be interrupted, were it
    not handled here, if only by doing nothing.
    """
    came: list[int] = []

    def note(number: int, frame: object) -> None:
        if before[number] is not signal.SIG_IGN:
            came.append(number)

    before = {int(number): signal.getsignal(number) for number in _ENDING}
    for number in _ENDING:
        if number == signal.SIGINT or before[number] is signal.SIG_DFL:
            signal.signal(number, note)
    try:
        yield came
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def tail(log: Path, lines: int = 20) -> str:
    """The last lines of what an item said."""
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").rstrip().splitlines()[-lines:])
