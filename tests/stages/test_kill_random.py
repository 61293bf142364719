"""Every stage killed at moments drawn anew each time, tracked by MLflow; ``dvc repro`` ends in the undisturbed bytes.

``SGLR_TEST_SEED`` repeats the moments of an earlier run (as far as a machine repeats them); each line printed says what
was hit. What is killed started with the plain interpreter, so that processes, parents and groups are those of a user.
"""

import collections
import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from study_project import EPOCHS, ITEMS, Ended, Project

pytestmark = pytest.mark.slow
SEED = int(os.environ.get("SGLR_TEST_SEED") or random.SystemRandom().randrange(10**6))
REFINED = "train@sglr-0"
# Refinement starts with epoch 2.
REFINING = 3
WHOM = ("the stage", "DVC", "the group")
SIGNALS = (signal.SIGKILL, signal.SIGTERM)
# The module that an item's process runs.
STARTED = {item: f"stages.{item.partition('@')[0]}" for item in ITEMS}


class Study(Project):
    """The finished study without one item: no outs, no entry in dvc.lock or the run cache, and a database of its own.

    What comes after the item is there: it stays as it is when the item ends in the same bytes.
    """

    def __init__(self, study: Project, path: Path, warm: Path, item: str, database: Path) -> None:
        super().__init__(study.copy(path).path)
        self.item, self.expected, self.quick = item, study, Project(path, warm)
        for project in (self, self.quick):
            project.environment.pop("SGLR_TRACKING", None)
            project.environment |= {"SGLR_SNAPSHOT_SECONDS": "0", "SGLR_SYSTEM_METRICS": "off"}
        self.forget(item)
        for old in ("snapshots", "journal", "locks"):
            shutil.rmtree(path / ".sglr" / old, ignore_errors=True)
        shutil.copy(database, path / "mlflow.db")

    def snapshots(self) -> list[Path]:
        return sorted(self.path.glob(".sglr/snapshots/*/*/snapshot-*"))

    def epoch(self) -> int:
        """The epoch the newest snapshot was written in; 0 without any."""
        return max((int(path.name.split("-")[1]) for path in self.snapshots()), default=0)


@pytest.fixture
def study_of(
    first_run: tuple[Project, Ended], tmp_path: Path, warm: Path, empty_database: Path
) -> Iterator[Callable[[str], Study]]:
    """``study_of(item)``; whatever it still runs at the end of the test is killed."""
    studies: list[Study] = []

    def make(item: str) -> Study:
        studies.append(Study(first_run[0], tmp_path / f"study-{len(studies)}", warm, item, empty_database))
        return studies[-1]

    yield make
    for process in psutil.process_iter():
        try:
            if any(process.cwd() == str(study.path) for study in studies):
                process.kill()
        except psutil.Error:
            pass


def stage_of(dvc: subprocess.Popen[bytes], item: str) -> psutil.Process | None:
    """The item's process, while there is one."""
    try:
        for process in psutil.Process(dvc.pid).children(recursive=True):
            if process.cmdline()[1:3] == ["-m", STARTED[item]]:
                return process
    except psutil.Error:
        pass
    return None


def where(study: Study, dvc: subprocess.Popen[bytes]) -> str:
    """How far an item is, for people."""
    stage, outs = stage_of(dvc, study.item), study.expected.lock()[study.item]["outs"]
    made = sum((study.path / out["path"]).exists() for out in outs)
    if stage is None:
        return "DVC commits" if f"Running stage '{study.item}'" in study.said() and made else "DVC starts"
    if made:
        return "the stage writes its outs"
    if study.epoch():
        return f"epoch {study.epoch()} of training"
    if list(study.path.glob(".sglr/snapshots/evaluate/**/*.npz")):
        return "the evaluation has pieces"
    if list(study.path.glob(".sglr/journal/*/journal.jsonl")):
        return "the stage works"
    return "the stage starts"


def end(whom: str, number: int, dvc: subprocess.Popen[bytes], stage: psutil.Process | None) -> str:
    """Send a signal; whom it went to."""
    if whom == "the group":
        os.killpg(dvc.pid, number)
    elif whom == "the stage" and stage is not None:
        stage.send_signal(number)
    else:
        whom = "DVC"
        dvc.send_signal(number)
    return f"{signal.Signals(number).name} to {whom}"


def points(root: Path, item: str) -> tuple[list[str], collections.Counter[tuple[str, int, float]]]:
    """Status of every run of an item, and every point: name, step, value (left out of durations and of memory)."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{root}/mlflow.db")
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    runs = [run for run in client.search_runs([experiment.experiment_id]) if run.info.run_name == item]
    found: collections.Counter[tuple[str, int, float]] = collections.Counter()
    for run in runs:
        for name in run.data.metrics:
            if not name.startswith(("system/", "test/", "information/")) or item != REFINED:
                for point in client.get_metric_history(run.info.run_id, name):
                    found[name, point.step, 0.0 if name.startswith(("seconds/", "memory/")) else point.value] += 1
    return [run.info.status for run in runs], found


def check_ended(study: Study, *, resumed_after: Path | None) -> str:
    """``dvc repro`` ends in the bytes and the points of the undisturbed study; what it repeated, for people."""
    if not (study.path / "dvc.lock").read_text():
        (study.path / "dvc.lock").unlink()  # as `sglr status` says: DVC empties it before it writes
    ended = study.quick.repro()
    assert study.lock() == study.expected.lock()
    for out in study.lock()[study.item]["outs"]:
        whole, again = study.expected.path / out["path"], study.path / out["path"]
        for path in [p for p in whole.rglob("*") if p.is_file()] if whole.is_dir() else [whole]:
            assert (again / path.relative_to(whole)).read_bytes() == path.read_bytes(), path
    start = re.search(rf"^resuming {study.item} from epoch (\d+), step (\d+)$", ended.output, re.MULTILINE)
    if resumed_after is not None and ended.ran:
        _, epoch, step = resumed_after.name.split("-")
        assert start is not None, ended.output
        assert int(start[1]) * 1000 + int(start[2]) >= int(epoch) * 1000 + int(step) + 1, ended.output
    if study.item != "check":
        assert study.quick.call("python", "-m", "sglr.cli", "sync").status == 0
        expected = points(study.expected.path, study.item)[1]
        names = {name for name, _, _ in expected if not name.startswith(("system/", "test/", "information/"))}
        statuses, found = points(study.path, study.item)
        # An item that was done before it was killed has a second run only if it ran again from nothing.
        assert set(statuses) == {"FINISHED"}, statuses
        own = collections.Counter({point: n for point, n in found.items() if point[0] in names})
        wanted = collections.Counter({point: n for point, n in expected.items() if point[0] in names})
        assert own == collections.Counter({point: len(statuses) * n for point, n in wanted.items()})
        assert not list(study.path.glob(".sglr/journal/*/journal.jsonl"))
    return f"resumed in epoch {start[1]}" if start else f"ran again: {', '.join(ended.ran) or 'nothing'}"


def timed(seconds: float, dvc: subprocess.Popen[bytes]) -> None:
    """Wait so long, or for the end of the command."""
    moment = time.monotonic() + seconds
    while time.monotonic() < moment and dvc.poll() is None:
        time.sleep(0.002)


def until(true: Callable[[], Any], dvc: subprocess.Popen[bytes], seconds: float = 60) -> bool:
    """Whether something came true while the command ran."""
    deadline = time.monotonic() + seconds
    while not true():
        if dvc.poll() is not None or time.monotonic() > deadline:
            return False
        time.sleep(0.0005)
    return True


def reach(study: Study, epoch: int, seconds: float, dvc: subprocess.Popen[bytes]) -> None:
    """Wait for an epoch's first snapshot and so long again."""
    until(lambda: study.epoch() >= epoch, dvc)
    time.sleep(seconds)


def killed(study: Study, draw: random.Random, wait: Callable[[subprocess.Popen[bytes]], object], whom: str) -> str:
    """Start ``dvc repro``, wait, end it by a signal; what was hit, or '' when it had ended before."""
    dvc = study.start("dvc", "repro", study.item)
    wait(dvc)
    if dvc.poll() is not None:
        return ""
    # Everything stands still while it is looked at.
    stage = stage_of(dvc, study.item)
    held = [psutil.Process(dvc.pid), *([stage] if stage else [])]
    try:
        for process in held:
            process.suspend()
        place = where(study, dvc)
        sent = end(whom, draw.choice(SIGNALS), dvc, stage)
        for process in held:
            if process.is_running():
                process.resume()
    except psutil.Error:
        return ""
    dvc.wait(60)
    return f"{study.item}: {sent} while {place}"


@pytest.mark.parametrize("number", range(20))
def test_killed_at_a_random_moment(study_of: Callable[[str], Study], capsys: pytest.CaptureFixture[str], number: int):
    """The first seven while labels are being refined, the others anywhere in any stage."""
    draw = random.Random(SEED * 1000 + number)
    refining = number < 7
    item = REFINED if refining else draw.choice([name for name in ITEMS if name != "check"])
    hit, latest = "", 9.0
    for _ in range(8):
        study = study_of(item)
        epoch = draw.randint(REFINING, EPOCHS - 1)

        wait = (
            partial(reach, study, epoch, draw.random() / 20) if refining else partial(timed, draw.uniform(1.5, latest))
        )
        hit = killed(study, draw, wait, draw.choice(WHOM))
        latest *= 0.7
        if hit:
            break
    assert hit, study.said()
    newest = study.snapshots()[-1] if study.snapshots() else None
    assert newest is not None or not refining
    said = check_ended(study, resumed_after=newest)
    with capsys.disabled():
        print(f"\n  seed {SEED}, {number}: {hit}; then {said}", end="", flush=True)


def half_written(study: Study) -> bool:
    return any(study.path.glob(".sglr/snapshots/*/*/.snapshot-*"))


def committing(study: Study, dvc: subprocess.Popen[bytes]) -> bool:
    """The stage has ended, DVC takes its outs into the cache and has not yet written them into dvc.lock."""
    metrics = study.path / "artifacts/train/sglr-0/metrics.json"
    return metrics.exists() and stage_of(dvc, study.item) is None and study.item not in study.lock()


def hit_inside(study: Study, aim: str, epoch: int) -> bool:
    """Start ``dvc repro`` and kill who is at it, from ``epoch`` on; whether it was still at it when it was killed."""
    dvc, there = study.start("dvc", "repro", REFINED), partial(AIMS[aim], study)
    begun = aim == "DVC commits" or until(lambda: study.epoch() >= epoch, dvc)
    # Known before the moment comes, which may be over within milliseconds.
    target = psutil.Process(dvc.pid) if aim == "DVC commits" else stage_of(dvc, REFINED)
    hit = False
    if begun and target is not None and until(lambda: there(dvc), dvc):
        with contextlib.suppress(psutil.NoSuchProcess):
            target.suspend()
            hit = bool(there(dvc))
            target.kill()
    dvc.wait(60)
    return hit


AIMS: dict[str, Callable[[Study, subprocess.Popen[bytes]], object]] = {
    "a snapshot is written": lambda study, dvc: half_written(study),
    "DVC commits": committing,
    # SQLite's own journal: a transaction is open.
    "MLflow writes": lambda study, dvc: (study.path / "mlflow.db-journal").exists(),
}


@pytest.mark.parametrize("aim", AIMS)
@pytest.mark.parametrize("number", range(2))
def test_killed_inside(study_of: Callable[[str], Study], capsys: pytest.CaptureFixture[str], aim: str, number: int):
    """Seen from outside by the files that are there at that moment; SIGKILL, since SIGTERM lets it end the write."""
    draw = random.Random(f"{SEED} {aim} {number}")
    for _ in range(20):
        study, epoch = study_of(REFINED), draw.randint(REFINING, EPOCHS - 1)
        if hit_inside(study, aim, epoch):
            break
    else:
        pytest.fail(f"not once seen from outside: {aim}")
    newest = study.snapshots()[-1] if study.snapshots() else None
    hit = f"SIGKILL to {'DVC' if aim == 'DVC commits' else 'the stage'}, epoch {study.epoch()}"
    said = check_ended(study, resumed_after=newest)
    with capsys.disabled():
        print(f"\n  seed {SEED}, {aim}: {hit}; then {said}", end="", flush=True)
