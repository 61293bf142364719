"""Several clones of one project: a remote and a folder as shared cache, one tracking server."""

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from study_project import ITEMS, Project

pytestmark = pytest.mark.slow


@pytest.fixture
def shared(versioned: Project, tmp_path: Path) -> Project:
    """The finished study in git, with a folder as DVC's remote, to which everything has been pushed."""
    asked = ("dvc", "remote", "add", "--default", "shared", str(tmp_path / "remote"))
    assert versioned.call(*asked).status == 0
    versioned.call("git", "commit", "--quiet", "--all", "--message", "a remote")
    pushed = versioned.call("dvc", "push", "--run-cache")
    assert pushed.status == 0, pushed.output
    return versioned


def clone(project: Project, path: Path, warm: Path) -> Project:
    """A clone as git makes it: no results, no cache."""
    subprocess.run(["git", "clone", "--quiet", project.path, path], check=True)
    assert not (path / ".dvc/cache").exists()
    return Project(path, warm)


def test_a_clone_pulls_everything_and_runs_nothing(shared, tmp_path, warm):
    other = clone(shared, tmp_path / "clone", warm)
    pulled = other.call("dvc", "pull", "--run-cache")
    assert pulled.status == 0, pulled.output
    ended = other.repro()
    assert ended.ran == ended.restored == []
    assert other.lock() == shared.lock()
    assert other.read("report/results.md") == shared.read("report/results.md")


def test_two_clones_with_one_cache_folder(versioned, tmp_path, warm):
    cache = tmp_path / "cache"
    (versioned.path / ".dvc/cache").rename(cache)
    projects = [versioned, clone(versioned, tmp_path / "clone", warm)]
    for project in projects:
        assert project.call("dvc", "cache", "dir", "--local", str(cache)).status == 0
    first, second = projects
    assert second.call("dvc", "checkout").status == 0
    assert second.repro().ran == []
    assert second.lock() == first.lock()
    second.change(lambda params: params["methods"]["sglr"]["labels"].update(alpha=0.5))
    first.change(lambda params: params["methods"]["sglr"]["labels"].update(alpha=0.5))
    assert "train@sglr-0" in second.repro().ran
    assert first.repro().ran == ["check"]  # its output persists, for which DVC keeps no run cache
    assert second.lock() == first.lock()


def test_two_clones_log_to_one_server_at_once(versioned, tmp_path, warm):
    from mlflow.tracking import MlflowClient

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address, store = f"http://127.0.0.1:{port}", tmp_path / "server"
    store.mkdir()
    serve = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{store}/mlflow.db", "--artifacts-destination", str(store / "artifacts"),
    ]  # fmt: skip
    other = versioned.copy(tmp_path / "other", warm)
    projects = [versioned, other]
    with (tmp_path / "server.txt").open("wb") as log:
        server = subprocess.Popen(serve, env=versioned.environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        wait_for(port)
        ends = []
        for project in projects:
            project.environment |= {"MLFLOW_TRACKING_URI": address, "SGLR_TRACKING_WAIT": "60"}
            project.environment.pop("SGLR_TRACKING", None)
            ends.append(project.start("dvc", "repro", "--force"))
        assert [process.wait(300) for process in ends] == [0, 0], [project.said() for project in projects]
        client = MlflowClient(address)
        experiment = client.get_experiment_by_name("tiny")
        found = client.search_runs([experiment.experiment_id])
        names = sorted(run.info.run_name for run in found)
        assert names == sorted(2 * [item for item in ITEMS if item != "check"])
        assert {run.info.status for run in found} == {"FINISHED"}
        training = next(run.info.run_id for run in found if run.info.run_name == "train@sglr-0")
        assert "metrics.json" in [file.path for file in client.list_artifacts(training)]
        for project in projects:
            assert [path for path in (project.path / ".sglr/journal").iterdir() if path.is_dir()] == []
    finally:
        end(server)


def wait_for(port: int) -> None:
    deadline = time.monotonic() + 90
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.2)


def end(server: "subprocess.Popen[bytes]") -> None:
    """End the server and the workers it started."""
    import psutil

    started = psutil.Process(server.pid).children(recursive=True)
    server.terminate()
    server.wait(30)
    for worker in started:
        if worker.is_running():
            worker.kill()
