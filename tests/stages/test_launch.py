"""A stage that trains in several processes, its own or a launcher's: the result of one, and nothing left behind."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import hosts
import psutil
import pytest
from safetensors.torch import load_file
from study_project import Project
from torch.testing import assert_close
from waiting import until

pytestmark = pytest.mark.slow
TRAIN = ("-m", "stages.train", "sglr", "0")
two_machines = pytest.mark.skipif(not hosts.available(), reason="network namespaces are needed")


@pytest.fixture(scope="module")
def study(blank: Project, tmp_path_factory: pytest.TempPathFactory, warm: Path) -> Project:
    """Trained by one process, with a model that several on a CPU can train."""
    project = blank.copy(tmp_path_factory.mktemp("launch") / "study", warm)
    project.change(lambda params: params["model"].update(batch_norm=False))
    project.repro("train@sglr-0")
    # What follows is started with the plain commands.
    return Project(project.path)


def weights(project: Project) -> dict:
    return load_file(project.path / "artifacts/train/sglr-0/last/model.safetensors")


def again(study: Project, path: Path) -> Project:
    """The study before its training."""
    project = study.copy(path)
    shutil.rmtree(project.path / "artifacts/train/sglr-0")
    shutil.rmtree(project.path / ".sglr/snapshots", ignore_errors=True)
    return project


def check(project: Project, study: Project) -> None:
    found, expected = weights(project), weights(study)
    assert_close(found, expected, rtol=2e-3, atol=2e-4)
    assert sorted(path.name for path in (project.path / "artifacts/train/sglr-0").iterdir()) == sorted(
        path.name for path in (study.path / "artifacts/train/sglr-0").iterdir()
    )


def trainings(project: Project) -> list[psutil.Process]:
    """Its processes and those they started."""
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()) == project.path and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_the_stage_starts_the_others(study: Project, tmp_path):
    project = again(study, tmp_path / "study")
    ended = project.call("python", *TRAIN, SGLR_NPROC="2")
    assert ended.status == 0, ended.output
    check(project, study)


def test_under_torchrun_the_first_of_them_speaks(study: Project, tmp_path):
    project = again(study, tmp_path / "study")
    launch = ("torchrun", "--nproc-per-node", "2", "--master-addr", "127.0.0.1", "--master-port", "0", "--rdzv-backend",
              "c10d", "--rdzv-endpoint", "127.0.0.1:0")  # fmt: skip
    ended = project.call(*launch, *TRAIN)
    assert ended.status == 0, ended.output
    check(project, study)
    # A stage that is not for several runs once.
    ended = project.call(*launch, "-m", "stages.check")
    assert ended.status == 0, ended.output


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_killed_it_leaves_nobody_and_continues(study: Project, tmp_path, how):
    project = again(study, tmp_path / "study")
    running = project.start("python", *TRAIN, SGLR_NPROC="2", SGLR_SNAPSHOT_SECONDS="0")
    snapshots = project.path / ".sglr/snapshots/train"
    until(lambda: list(snapshots.glob("*/snapshot-00000[4-9]-*")) or running.poll() is not None, "epoch 4")
    os.kill(running.pid, how)
    status = running.wait(60)
    assert status == (-signal.SIGKILL if how == signal.SIGKILL else 128 + signal.SIGTERM), project.said()
    until(lambda: not trainings(project), "the others to end")
    ended = project.call("python", *TRAIN, SGLR_NPROC="1")
    assert ended.status == 0, ended.output
    assert "resuming train@sglr-0 from epoch" in ended.output
    check(project, study)


def test_batch_norm_on_a_cpu_is_refused(study: Project, tmp_path):
    project = study.copy(tmp_path / "study")
    project.change(lambda params: params["model"].update(batch_norm=True))
    ended = project.call("python", "-m", "stages.warmup", "0", SGLR_NPROC="2")
    assert ended.status == 1
    assert "2 processes cannot train a model with batch norm on a CPU" in ended.output
    assert "Traceback" not in ended.output


def start_on(machines: tuple[hosts.Host, ...], project: Project, **environment: str) -> list[subprocess.Popen[bytes]]:
    """The training under torchrun on every machine, as the how-to page says; what each says is in said-0, said-1."""
    launch = ("torchrun", "--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-endpoint",
              f"{machines[0].address}:29500")  # fmt: skip
    return [project.start(*host.command(*launch, *TRAIN), **environment) for host in machines]


def said_of_both(project: Project) -> tuple[str, str]:
    return project.said(before=True), project.said()


@two_machines
def test_on_two_machines_it_is_one_training(study: Project, tmp_path):
    project = again(study, tmp_path / "study")
    with hosts.two_hosts() as machines:
        running = start_on(machines, project)
        assert [process.wait(120) for process in running] == [0, 0], said_of_both(project)
    check(project, study)


@two_machines
@pytest.mark.parametrize("lost", [0, 1], ids=["one", "two"])
def test_a_machine_that_is_lost_ends_the_training_which_continues(study: Project, tmp_path, lost):
    project = again(study, tmp_path / "study")
    snapshots = project.path / ".sglr/snapshots/train"
    with hosts.two_hosts() as machines:
        running = start_on(machines, project, SGLR_SNAPSHOT_SECONDS="0")
        until(lambda: list(snapshots.glob("*/snapshot-00000[4-9]-*")) or running[0].poll() is not None, "epoch 4")
        machines[lost].end_all()
        assert running[1 - lost].wait(120) != 0, said_of_both(project)
    until(lambda: not trainings(project), "the others to end")
    with hosts.two_hosts() as machines:
        running = start_on(machines, project)
        assert [process.wait(120) for process in running] == [0, 0], said_of_both(project)
    assert any("resuming train@sglr-0 from epoch" in text for text in said_of_both(project))
    check(project, study)
