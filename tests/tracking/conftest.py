"""A project folder with a fresh MLflow database, and a look into it."""

import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sglr import tracking

COST = ("seconds/", "memory/")


@pytest.fixture
def root(empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project with tracking on, system metrics off, and nothing of the caller's environment."""
    for name in ("MLFLOW_TRACKING_URI", "SGLR_TRACKING", "SGLR_TRACKING_WAIT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SGLR_SYSTEM_METRICS", "off")
    monkeypatch.chdir(tmp_path)
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return tmp_path


@pytest.fixture
def train(root: Path) -> Callable[..., Any]:
    """``tracking.run`` of a training item."""

    def start(**changes: Any) -> Any:
        tags = {"method": "sglr", "seed": "0", "params_hash": "p1"}
        plain = {"experiment": "digits", "stage": "train", "item": "train@sglr-0", "tags": tags, "key": "k1"}
        return tracking.run(root=root, **(plain | changes))

    return start


@pytest.fixture
def free_port() -> int:
    """A port of the loopback on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Database:
    """What a user sees in MLflow."""

    def __init__(self, root: Path) -> None:
        from mlflow.tracking import MlflowClient

        self.client = MlflowClient(f"sqlite:///{root}/mlflow.db")

    def runs(self, experiment: str = "digits") -> list[Any]:
        """All runs, oldest first."""
        found = self.client.get_experiment_by_name(experiment)
        order = ["attributes.start_time ASC"]
        return list(self.client.search_runs([found.experiment_id], order_by=order)) if found else []

    def run(self) -> Any:
        """The only run."""
        (run,) = self.runs()
        return run

    def points(self, run: Any, metric: str) -> list[tuple[int, float]]:
        """(step, value) of every stored point of a metric, by step."""
        return sorted((point.step, point.value) for point in self.client.get_metric_history(run.info.run_id, metric))

    def metrics(self, run: Any) -> dict[str, float]:
        """The last values of a run's metrics, without what it cost."""
        return {name: value for name, value in run.data.metrics.items() if not name.startswith(COST)}

    def artifacts(self, run: Any, folder: str | None = None) -> set[str]:
        """Paths of artifacts in a folder."""
        return {entry.path for entry in self.client.list_artifacts(run.info.run_id, folder)}


@pytest.fixture
def database(root: Path) -> Iterator[Database]:
    """The project's database."""
    return Database(root)
