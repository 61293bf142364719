"""Settings of all tests: one thread, no tracking unless a test asks for it."""

import os
import signal
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["SGLR_TRACKING"] = "off"
os.environ["SGLR_DEVICE"] = "cpu"
os.environ["DVC_NO_ANALYTICS"] = "true"

import pytest
import torch

from sglr import processes

processes.keep_freed_memory()
# Ignored in what a script starts in the background; tests that stop things by Ctrl-C need it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def params() -> dict:
    """The shipped params.yaml as plain values, free to change."""
    from sglr.config import parse

    return parse((Path(__file__).parents[1] / "params.yaml").read_text())


@pytest.fixture
def digits_project(params: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with the params of a few digits, before anything ran."""
    import yaml

    monkeypatch.chdir(tmp_path)
    params["data"] |= {"source": {"name": "digits", "test_size": 40}, "train_size": 60, "validation_size": 20}
    params["train"]["batch_size"] = 60
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    return tmp_path


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An initialised database without runs: making one takes MLflow two seconds, copying it none."""
    from sglr.tracking import server

    folder = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        server.connect(folder)
    return folder / "mlflow.db"
