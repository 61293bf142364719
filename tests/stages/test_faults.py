"""Faults around a whole pipeline: a disk that fills, numbers that break, two at once, credentials."""

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from study_project import EPOCHS, ITEMS, REPOSITORY, Ended, Project

sys.path.insert(0, str(REPOSITORY / "tests"))
from disks import disk, fill
from waiting import until

from sglr import config, files
from sglr.doctor import space
from sglr.project import status

ITEM = "train@sglr-0"


@pytest.fixture
def forgotten(first_run: tuple[Project, Ended], tmp_path: Path, warm: Path) -> Callable[..., Project]:
    """``forgotten(item, folder)``: a copy of the finished study without one item."""

    def make(item: str = ITEM, folder: Path | None = None) -> Project:
        project = first_run[0].copy((folder or tmp_path) / "study", warm)
        project.forget(item)
        return project

    return make


def finish(project: Project, expected: Project) -> Ended:
    """``dvc repro`` ends in the bytes of the undisturbed study."""
    ended = project.repro()
    assert project.lock() == expected.lock()
    return ended


@pytest.mark.slow
def test_the_forecast_of_a_training_covers_what_it_writes(forgotten: Callable[..., Project]):
    project = forgotten()
    assert project.call("python", "-m", "stages.train", "sglr", "0", SGLR_SNAPSHOT_SECONDS="0").status == 0
    outs = project.path / "artifacts/train/sglr-0"
    kept = list(project.path.glob(".sglr/snapshots/train/*/**/*"))
    written = sum(path.stat().st_size for path in [*outs.rglob("*"), *kept] if path.is_file())
    need = space.needed(config.load(project.path / "params.yaml"), project.path / "artifacts/data")
    assert written < need.own < need.with_copies
    # Without the two megabytes for small files it is of the same size.
    assert need.own - 2**21 < 4 * written


def test_the_forecast_of_a_study_covers_what_it_leaves(finished: Project):
    settings, data = config.load(finished.path / "params.yaml"), finished.path / "artifacts/data"
    written = sum(path.stat().st_size for path in data.parent.rglob("*") if path.is_file())
    forecast = space.of_study(settings, data)
    assert 2 * written < forecast
    # Without the two megabytes of each item for small files it is of the same size.
    assert forecast - len(ITEMS[1:]) * 2**21 < 4 * 2 * written
    done = [one.item for one in status.status(finished.path) if one.state == "done"]
    assert space.of_study(settings, data, done) == 0


@pytest.mark.slow
def test_a_training_that_will_not_fit_the_disk_does_not_start(
    forgotten: Callable[..., Project], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    project = forgotten()
    settings, data = config.load(project.path / "params.yaml"), project.path / "artifacts/data"
    need = space.needed(settings, data)
    own, with_copies = need.own, need.with_copies
    said: list[str] = []
    with disk(tmp_path / "disk", with_copies // 1024 + 64) as small:
        space.require(settings, data, small, said.append)
        assert said == []
        ballast = fill(small, (own + with_copies) // 2)
        space.require(settings, data, small, said.append)
        assert "with DVC's copy of its outputs this training takes up to" in said[0]
        ballast.unlink()
        fill(small, own // 2)
        with pytest.raises(files.FileError, match=r"MB are free in .*; this training writes up to .* MB\. Make room"):
            space.require(settings, data, small, said.append)
    # As a stage says it.
    monkeypatch.chdir(project.path)
    code = (
        "import shutil, collections, runpy, sys\n"
        "shutil.disk_usage = lambda path: collections.namedtuple('Usage', 'free')(9)\n"
        "sys.argv = ['train', 'sglr', '0']\n"
        "runpy.run_module('stages.train', run_name='__main__')"
    )
    ended = project.call(sys.executable, "-c", code)
    assert ended.status == 1
    assert re.search(r"Error: 0 MB are free in .*; this training writes up to \d+ MB\. Make room", ended.output)
    assert list((project.path / "artifacts/train/sglr-0").iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("what", ["a snapshot", "the outputs", "DVC's cache", "MLflow's database"])
def test_a_disk_fills_while_a_pipeline_runs(
    first_run: tuple[Project, Ended], forgotten: Callable[..., Project], tmp_path: Path, what: str
):
    """What was there stays whole; with room again, `dvc repro` ends in the undisturbed bytes."""
    whole = first_run[0]
    with disk(tmp_path / "disk", 64 * 1024) as small:
        project = forgotten(folder=small if what in ("a snapshot", "the outputs") else tmp_path)
        environment = {"SGLR_SNAPSHOT_SECONDS": "3600" if what == "the outputs" else "0"}
        snapshots = project.path / ".sglr/snapshots/train"
        if what == "DVC's cache":
            shutil.move(project.path / ".dvc/cache/files", small / "files")
            (project.path / ".dvc/cache/files").symlink_to(small / "files")
        if what == "MLflow's database":
            del project.environment["SGLR_TRACKING"]
            environment |= {"MLFLOW_TRACKING_URI": f"sqlite:///{small}/mlflow.db", "SGLR_TRACKING_WAIT": "20"}
        run = project.start("dvc", "repro", ITEM, **environment)
        pattern = "*/kept/2" if what == "the outputs" else "*/snapshot-000005-*"
        until(lambda: list(snapshots.glob(pattern)), running=run, said=project.said)
        ballast = fill(small)
        status = run.wait(120)
        said = project.said()
        if what == "MLflow's database":
            assert status == 0, said
            assert "are not on the tracking server" in said
            ballast.unlink()
            ended = project.call("python", "-m", "sglr.cli", "sync", **environment)
            assert "0 missing" in ended.output, ended.output
            check_points(small, ITEM)
        else:
            assert status != 0, said
            assert "No space left on device" in said
            assert ITEM not in project.lock()
            left = list(snapshots.glob("*/snapshot-*"))
            assert all(files.load_state(path) for path in left)
            assert bool(left) == (what != "the outputs")
            ballast.unlink()
        ended = finish(project, whole)
        if what in ("a snapshot", "DVC's cache"):
            assert f"resuming {ITEM}" in ended.output


def check_points(root: Path, item: str) -> None:
    """One finished run of the item, each epoch of it once."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{root}/mlflow.db")
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    (run,) = (run for run in client.search_runs([experiment.experiment_id]) if run.info.run_name == item)
    assert run.info.status == "FINISHED"
    for name in ("train/loss", "val/pgd", "refined/entropy"):
        steps = [point.step for point in client.get_metric_history(run.info.run_id, name)]
        assert sorted(steps) == list(range(1, EPOCHS + 1)), name


@pytest.mark.slow
def test_a_loss_that_is_not_finite_fails_the_stage_and_its_run(finished: Project):
    """The message says where and why, DVC records nothing, MLflow shows the run as failed."""
    from mlflow.tracking import MlflowClient

    del finished.environment["SGLR_TRACKING"]
    before = finished.lock()
    database = f"sqlite:///{finished.path}/failed.db"
    finished.change(lambda p: p["train"]["optimizer"].update(lr=1e30))
    ended = finished.call(
        "dvc", "repro", ITEM, MLFLOW_TRACKING_URI=database, SGLR_SNAPSHOT_SECONDS="0", SGLR_SYSTEM_METRICS="off"
    )
    assert ended.status != 0
    place = r"Error: the loss is not finite from epoch 1, batch \d of 2 on\. Likely causes: too high a learning rate"
    assert re.search(place, ended.output), ended.output
    assert f"failed to reproduce '{ITEM}'" in ended.output
    assert finished.lock()[ITEM] == before[ITEM]
    assert not (finished.path / "artifacts/train/sglr-0/metrics.json").exists()
    client = MlflowClient(database)
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    runs = {run.info.run_name: run.info.status for run in client.search_runs([experiment.experiment_id])}
    assert runs[ITEM] == "FAILED"
    for snapshot in finished.path.glob(".sglr/snapshots/train/*/snapshot-*"):
        values = files.load_state(snapshot)["model"].values()
        assert all(bool(value.isfinite().all()) for value in values)


@pytest.mark.slow
def test_two_at_once_in_one_workspace(first_run: tuple[Project, Ended], forgotten: Callable[..., Project]):
    """The second `dvc repro` waits, or leaves at once with DVC's word for it; the first ends as if it were alone."""
    project = forgotten()
    first = project.start("dvc", "repro", SGLR_SNAPSHOT_SECONDS="0")
    until(lambda: list(project.path.glob(".sglr/snapshots/train/*/snapshot-*")), running=first, said=project.said)
    second = project.call("dvc", "repro")
    assert first.wait(120) == 0, project.said()
    assert second.status == 0 or re.search("lock|busy", second.output), second.output
    assert second.ran in ([], [ITEM])
    assert project.lock() == first_run[0].lock()
    assert finish(project, first_run[0]).ran == []


@pytest.mark.slow
def test_two_targets_at_once(first_run: tuple[Project, Ended], forgotten: Callable[..., Project]):
    project = forgotten()
    other = "train@at-0"
    project.forget(other)
    running = [project.start("dvc", "repro", "--single-item", item) for item in (ITEM, other)]
    assert [process.wait(120) for process in running] == [0, 0], project.said() + project.said(before=True)
    assert finish(project, first_run[0]).ran == []


@pytest.mark.slow
def test_two_workspaces_share_a_cache_and_a_database(
    first_run: tuple[Project, Ended], blank: Project, tmp_path: Path, warm: Path
):
    """Both at once from nothing: the same bytes in both, no run or point lost or double; a third trains nothing."""
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    projects = []
    for name in ("one", "two", "three"):
        project = blank.copy(tmp_path / name, warm)
        del project.environment["SGLR_TRACKING"]
        project.environment |= {"MLFLOW_TRACKING_URI": uri, "SGLR_SYSTEM_METRICS": "off", "SGLR_TRACKING_WAIT": "60"}
        assert project.call("dvc", "cache", "dir", "--local", str(tmp_path / "cache")).status == 0
        projects.append(project)
    one, two, three = projects
    running = [project.start("dvc", "repro") for project in (one, two)]
    assert [process.wait(400) for process in running] == [0, 0], one.said() + two.said()
    ran = {}
    for project in (one, two):
        assert project.lock() == first_run[0].lock()
        assert "0 missing" in project.call("python", "-m", "sglr.cli", "sync").output
        ran[project] = Ended(0, project.said()).ran
    ended = three.repro()
    # prepare's outs persist, which switches DVC's run cache off for it.
    assert set(ended.ran) <= {"check", "prepare"}
    assert three.lock() == first_run[0].lock()
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert {run.info.status for run in runs} == {"FINISHED"}
    for item in (ITEM, "train@at-0"):
        found = [run for run in runs if run.info.run_name == item and "restored" not in run.data.tags]
        assert len(found) == sum(item in items for items in ran.values())
        for run in found:
            steps = [point.step for point in client.get_metric_history(run.info.run_id, "train/loss")]
            assert sorted(steps) == list(range(1, EPOCHS + 1))


SECRETS = {
    "MLFLOW_TRACKING_URI": "http://anna-user:s3cret-in-uri@127.0.0.1:9/path",
    "MLFLOW_TRACKING_USERNAME": "s3cret-name",
    "MLFLOW_TRACKING_PASSWORD": "s3cret-word",
    "MLFLOW_TRACKING_TOKEN": "s3cret-token",
    "AWS_SECRET_ACCESS_KEY": "s3cret-key",
    "SOMETHING_ELSE": "s3cret-else",
}


@pytest.mark.slow
def test_credentials_and_the_environment_are_written_nowhere(finished: Project):
    """Not into params, tags, errors, records, journals, the report, nor what the commands say."""
    del finished.environment["SGLR_TRACKING"]
    environment = SECRETS | {"SGLR_TRACKING_WAIT": "2"}
    said = []
    for command in (
        ("dvc", "repro", "--force", "--single-item", ITEM),
        ("dvc", "repro", "--force", "--single-item", "evaluate@sglr-0"),
        ("dvc", "repro", "--force", "--single-item", "report"),
    ):
        ended = finished.call(*command, **environment)
        assert ended.status == 0, ended.output
        said.append(ended.output)
    for command in ("sync", "doctor", "status", "check"):
        said.append(finished.call("python", "-m", "sglr.cli", command, **environment).output)
    assert "fails (" in said[0] or "are not on the tracking server" in said[0]
    looked_at = 0
    for path in finished.path.rglob("*"):
        if path.is_file() and "cache" not in path.parts:
            looked_at += 1
            content = path.read_bytes()
            assert b"s3cret" not in content, path
            assert b"anna-user" not in content, path
    assert looked_at > 100
    assert list(finished.path.glob(".sglr/journal/*/journal.jsonl"))
    for text in said:
        assert "s3cret" not in text
        assert "anna-user" not in text
