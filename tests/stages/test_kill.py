"""Training that is killed in the middle, refinement under way, and continued by running ``dvc repro`` again.

What is killed started with the plain interpreter, so that processes, parents and groups are those of a user.
"""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml
from study_project import EPOCHS, Ended, Project
from waiting import until

from sglr.project import status
from stages import watch

ITEM = "train@sglr-0"
# Refinement starts with epoch 2.
REFINING = 4


class Killable(Project):
    """The finished study as it was before sglr's training: no outs, no entry in dvc.lock or the run cache."""

    def __init__(self, study: Project, path: Path, warm: Path) -> None:
        # What is killed, and what stands beside it, starts with the plain commands.
        super().__init__(study.copy(path).path)
        self.expected = study
        self.quick = Project(path, warm)
        shutil.rmtree(path / "artifacts/train/sglr-0")
        shutil.rmtree(path / ".dvc/cache/runs")
        stages = {item: entry for item, entry in self.lock().items() if item != ITEM}
        (path / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}, sort_keys=False))

    def snapshots(self) -> list[Path]:
        return sorted((self.path / ".sglr/snapshots/train").glob("*/snapshot-*"))

    def epoch(self) -> int:
        """The epoch the newest snapshot was written in; 0 without any."""
        return max((int(path.name.split("-")[1]) for path in self.snapshots()), default=0)

    def check_continued(self, ended: Ended, *, epoch: int) -> None:
        """It trained again, from no earlier than ``epoch``, and the result is that of the undisturbed study."""
        assert ended.ran == [ITEM]
        (start,) = re.findall(rf"^resuming {ITEM} from epoch (\d+), step \d+$", ended.output, re.MULTILINE)
        assert epoch <= int(start) <= EPOCHS
        assert self.lock() == self.expected.lock()
        for name in ("labels.npz", "history.csv", "last/model.safetensors"):
            path = Path("artifacts/train/sglr-0") / name
            assert (self.path / path).read_bytes() == (self.expected.path / path).read_bytes(), name


@pytest.fixture
def study(first_run: tuple[Project, Ended], tmp_path: Path, warm: Path) -> Iterator[Killable]:
    project = Killable(first_run[0], tmp_path / "study", warm)
    yield project
    project.end_all()


def train(study: Killable, *, epoch: int = REFINING) -> tuple[subprocess.Popen[bytes], psutil.Process]:
    """Start ``dvc repro``, wait until sglr's training is in epoch ``epoch``; the dvc process and the stage's."""
    dvc = study.start("dvc", "repro", SGLR_SNAPSHOT_SECONDS="0")
    until(lambda: study.epoch() >= epoch or dvc.poll() is not None, f"a snapshot of epoch {epoch}")
    assert dvc.poll() is None, study.said()
    return dvc, stage_of(dvc)


def stage_of(dvc: subprocess.Popen[bytes]) -> psutil.Process:
    """The training process that dvc started."""
    below = psutil.Process(dvc.pid).children(recursive=True)
    (stage,) = (process for process in below if process.cmdline()[1:3] == ["-m", "stages.train"])
    return stage


@pytest.mark.slow
def test_the_stage_is_killed(study: Killable):
    dvc, stage = train(study)
    stage.kill()
    assert dvc.wait(30) != 0
    assert f"failed to reproduce '{ITEM}'" in study.said()
    assert ITEM not in study.lock()
    study.check_continued(study.quick.repro(), epoch=REFINING)


@pytest.mark.slow
def test_the_whole_group_is_killed_and_the_newest_snapshot_damaged(study: Killable):
    """As in a power cut; the snapshot before the newest is whole."""
    dvc, stage = train(study)
    os.killpg(dvc.pid, signal.SIGKILL)
    dvc.wait(30)
    until(lambda: not stage.is_running(), "the stage to be gone")
    # A third, if it was killed before it removed the oldest.
    *_, older, newest = study.snapshots()
    newest.write_bytes(newest.read_bytes()[:-100])
    left = [study.path / f"artifacts/{stage}/sglr-0/.metrics.json.k3j2.partial" for stage in ("train", "evaluate")]
    for path in left:  # as in the middle of a write
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{")
    (said,) = (one for one in status.status(study.path) if one.item == ITEM)
    assert said.state == "interrupted"
    assert re.fullmatch(rf"in epoch \d of {EPOCHS}; continues there", said.reasons[0])
    ended = study.quick.repro()
    assert f"{newest.relative_to(study.path)} is damaged" in ended.output
    _, epoch, steps_done = older.name.split("-")
    assert f"from epoch {int(epoch)}, step {int(steps_done) + 1}\n" in ended.output
    study.check_continued(ended, epoch=REFINING - 1)
    assert [path.exists() for path in left] == [False, True]  # evaluate did not run; DVC looks past it


@pytest.mark.slow
def test_only_dvc_is_killed(study: Killable):
    """Its stage lives on for a moment; another ``dvc repro`` waits for its end, and the two never train at once."""
    dvc, orphan = train(study)
    orphan.suspend()
    dvc.kill()
    dvc.wait(30)
    held = study.snapshots()
    assert study.epoch() < EPOCHS
    again = study.start("dvc", "repro")
    until(lambda: f"waiting for another process that works on {ITEM}" in study.said() or again.poll(), "the lock")
    assert again.poll() is None, study.said()
    assert stage_of(again).pid != orphan.pid
    assert (orphan.is_running(), study.snapshots(), "resuming" in study.said()) == (True, held, False)
    orphan.resume()
    until(lambda: not orphan.is_running(), "the orphan to end by itself", seconds=15)
    assert again.wait(120) == 0, study.said()
    assert "the pipeline that started this stage is gone" in study.said(before=True)
    study.check_continued(Ended(0, study.said()), epoch=REFINING)


def test_dvc_is_gone_before_its_stage_looks_for_it(study: Killable):
    """A stage takes a second to start; it must not begin to work for nobody, over what the next run has made."""
    if any(name in " ".join(psutil.Process(1).cmdline()) for name in ("dvc", "python")):
        pytest.skip("orphans go to a process that could be DVC")
    command = "DVC_STAGE=train@sglr-0 exec python -m stages.train sglr 0"
    assert study.start("sh", "-c", f"(sleep 0.5; {command}) &").wait(10) == 0
    until(lambda: "the pipeline that started this stage is gone" in study.said(), "the stage to notice")
    assert study.snapshots() == []
    assert not (study.path / "artifacts/train/sglr-0").exists()


@pytest.mark.parametrize(
    ("pid", "name", "command", "takes"),
    [
        (1, "init", "/sbin/init splash", True),
        (880, "systemd", "/lib/systemd/systemd --user", True),
        (1, "tini", "/usr/bin/tini -- make repro", True),
        (1, "dvc", "/usr/bin/python /usr/bin/dvc repro", False),
        (1, "python3", "python3 -m dvc repro", False),
        (31, "make", "make repro", False),
        (1, "launchd", None, True),  # which macOS shows to root alone
        (31, "make", None, False),
    ],
)
def test_who_takes_orphans_is_no_pipeline(pid, name, command, takes):
    class Process:
        def __init__(self) -> None:
            self.pid = pid

        def name(self) -> str:
            return name

        def cmdline(self) -> list[str]:
            if command is None:
                raise psutil.AccessDenied(pid)
            return command.split()

    assert watch._takes_orphans(Process()) is takes


def test_a_polite_end_leaves_a_snapshot_and_no_results(study: Killable):
    stage = study.start("python", "-m", "stages.train", "sglr", "0", SGLR_SNAPSHOT_SECONDS="3600")
    # The weights of epoch 2, which params.yaml asks to keep, say where it is: no snapshot is due for an hour.
    kept = study.path / ".sglr/snapshots/train"
    until(lambda: list(kept.glob("*/kept/2")) or stage.poll() is not None, "epoch 2")
    stage.terminate()
    assert stage.wait(30) == 128 + signal.SIGTERM, study.said()
    assert "stopped by SIGTERM; run it again to continue" in study.said()
    assert len(study.snapshots()) == 1
    assert not (study.path / "artifacts/train/sglr-0").exists()
    study.check_continued(study.quick.repro(), epoch=3)


@pytest.mark.slow
def test_dvc_is_killed_while_it_commits(study: Killable):
    """The outs are written, dvc.lock does not know them: the stage runs again, from its last snapshot."""
    assert study.quick.call("python", "-m", "stages.train", "sglr", "0", SGLR_SNAPSHOT_SECONDS="0").status == 0
    assert study.epoch() == EPOCHS + 1
    ended = study.quick.repro()
    assert f"resuming {ITEM} from epoch {EPOCHS + 1}, step 1" in ended.output
    assert study.lock() == study.expected.lock()
    assert study.snapshots() != []
    # Snapshots go once the outs are committed, when the next stage begins.
    study.quick.repro("--force", "--single-item", "audit")
    assert list((study.path / ".sglr/snapshots").glob("*/*")) == []
