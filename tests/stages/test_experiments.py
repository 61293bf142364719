"""DVC experiments that run in a copy of the project: what outlives the copy, and resuming in another one."""

import json
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
from study_project import Project
from waiting import until

ALPHA = ("-S", "methods.sglr.labels.alpha=0.5")


def runs(project: Project) -> set[tuple[str, str, str | None]]:
    """Names, states and experiments of the runs in the project's database."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{project.path}/mlflow.db")
    (tiny,) = (found for found in client.search_experiments() if found.name == "tiny")
    return {
        (run.info.run_name, run.info.status, run.data.tags.get("dvc_experiment"))
        for run in client.search_runs([tiny.experiment_id])
    }


def copies(project: Project) -> list[Path]:
    """The copies that experiments run in, those of killed ones included."""
    return list((project.path / ".dvc/tmp/exps").glob("*/*/params.yaml"))


@pytest.mark.slow
def test_runs_and_records_of_a_queued_experiment_outlive_its_copy(versioned):
    record = versioned.path / ".sglr/records/train@sglr-0.json"
    own, before = record.read_bytes(), runs(versioned)
    for name, alpha in (("half", 0.5), ("third", 0.3)):
        asked = ("dvc", "exp", "run", "--queue", "--name", name, "-S", f"methods.sglr.labels.alpha={alpha}")
        assert versioned.call(*asked).status == 0
    assert versioned.call("dvc", "queue", "start", "--jobs", "2").status == 0
    status = ("dvc", "queue", "status")
    until(lambda: versioned.call(*status).output.count("Success") == 2, "both experiments to end", seconds=300)
    until(lambda: not copies(versioned), "the copies to go")
    items = ("train@sglr-0", "evaluate@sglr-0", "audit", "analyze@sglr-0", "report")
    expected = {(item, "FINISHED", name) for item in items for name in ("half", "third")}
    assert runs(versioned) - before == expected
    assert record.read_bytes() == own
    for name in ("half", "third"):
        found = json.loads((record.parent / name / record.name).read_text())
        assert (found["status"], found["run_id"] is not None) == ("FINISHED", True)
    # Everything was sent, and no snapshot is left.
    assert [path for path in (versioned.path / ".sglr/journal").iterdir() if path.is_dir()] == []
    assert list((versioned.path / ".sglr/snapshots").glob("*/*")) == []


@pytest.mark.slow
def test_a_killed_experiment_continues_in_another_copy(versioned, finished):
    finished.change(lambda params: params["methods"]["sglr"]["labels"].update(alpha=0.5))
    finished.repro("train@sglr-0")
    snapshots = versioned.path / ".sglr/snapshots/train"
    asked = ("dvc", "exp", "run", "--temp", *ALPHA)
    plain = Project(versioned.path)  # whose stages are processes below dvc's
    del plain.environment["SGLR_TRACKING"]
    process = plain.start(*asked, "--name", "killed", SGLR_SNAPSHOT_SECONDS="0")
    until(lambda: list(snapshots.glob("*/snapshot-00000[4-9]*")) or process.poll() is not None, "epoch 4")
    kill_all(process)
    assert process.wait(60) != 0, plain.said()
    assert list(snapshots.glob("*/snapshot-*")), plain.said()
    again = versioned.call(*asked, "--name", "again")
    assert again.status == 0, again.output
    assert "resuming train@sglr-0 from epoch" in again.output
    assert versioned.call("dvc", "exp", "apply", "again").status == 0
    assert versioned.lock()["train@sglr-0"]["outs"] == finished.lock()["train@sglr-0"]["outs"]
    # One run, reopened, and tagged with where it ended.
    trainings = [run for run in runs(versioned) if run[0] == "train@sglr-0" and run[2]]
    assert trainings == [("train@sglr-0", "FINISHED", "again")]


@pytest.mark.slow
def test_own_data_that_git_does_not_track_reach_the_copy(versioned):
    """As the how-to page says; DVC refuses the whole folder, of which git tracks a part."""
    x, y = np.arange(200, dtype=np.uint8).repeat(64).reshape(200, 1, 8, 8), np.arange(200) % 10
    np.savez(versioned.path / "data/own.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    versioned.change(lambda params: params["data"].update(source={"name": "npz", "path": "data/own.npz"}))
    asked = ("dvc", "exp", "run", "--temp")
    ended = versioned.call(*asked, "prepare")
    assert ended.status != 0
    assert "there is no file" in ended.output
    assert "File exists" in versioned.call(*asked, "--copy-paths", "data", "prepare").output
    for ended in (
        versioned.call(*asked, "--copy-paths", "data/own.npz", "prepare"),
        versioned.call(*asked, "--name", "from-root", "prepare", SGLR_DATA_ROOT=str(versioned.path)),
    ):
        assert ended.status == 0, ended.output
        assert "Running stage 'prepare'" in ended.output


def kill_all(process: "subprocess.Popen[bytes]") -> None:
    """SIGKILL for a process and all it has started."""
    import psutil

    for one in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
        one.send_signal(signal.SIGKILL)


def test_own_and_copied_project_find_the_same_place(tmp_path, monkeypatch):
    from stages import pipeline

    monkeypatch.chdir(tmp_path)
    assert (pipeline.home(), pipeline.dvc_copy()) == (Path(), None)
    copy = tmp_path / ".dvc/tmp/exps/standalone/tmpabc"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    assert (pipeline.home(), pipeline.dvc_copy()) == (tmp_path, "tmpabc")
    monkeypatch.setenv("DVC_EXP_NAME", "half")
    assert pipeline.dvc_copy() == "half"
