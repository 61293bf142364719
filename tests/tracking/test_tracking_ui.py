"""Where the curves are in MLflow's UI, and what serves it (its look: tests/stages/test_mlflow_ui.py)."""

import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sglr import tracking
from sglr.tracking.server import Server


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], str]]:
    """The commands that the process would have become, and the addresses of the store that they are told."""
    commands: list[tuple[list[str], str]] = []

    def become(path: str, command: list[str], environment: dict[str, str]) -> None:
        commands.append((command, environment["MLFLOW_BACKEND_STORE_URI"]))

    monkeypatch.setattr(os, "execve", become)
    return commands


def test_of_a_database_the_curves_address_is_said_and_the_server_started(
    root: Path, train: Callable[..., Any], database: Any, started: list[tuple[list[str], str]]
) -> None:
    with train():
        pass
    said: list[str] = []
    tracking.serve_ui(root, "digits", 5001, said.append)
    number = database.run().info.experiment_id
    assert said[0].startswith(f"The runs: http://127.0.0.1:5001/#/experiments/{number}/runs?compareRunsMode=CHART")
    assert said[1].startswith("Starting MLflow's server")
    (((python, *command), store),) = started
    assert python == sys.executable
    assert " ".join(command) == "-m mlflow ui --host 127.0.0.1 --port 5001 --workers 1"
    assert store == f"sqlite:///{root}/mlflow.db"


def test_a_password_of_the_database_is_on_no_command_line(
    root: Path, started: list[tuple[list[str], str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = "postgresql://anna:s3cret@127.0.0.1/runs"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setattr(tracking.ui, "connect", lambda root: Server(None, uri))  # type: ignore[arg-type]
    monkeypatch.setattr(Server, "find", lambda self, name: "7")
    said: list[str] = []
    tracking.serve_ui(root, "digits", 5000, said.append)
    ((command, store),) = started
    assert "s3cret" not in " ".join([*command, *said])
    assert store == uri


def test_before_anything_ran(root: Path, started: list[tuple[list[str], str]]) -> None:
    said: list[str] = []
    tracking.serve_ui(root, "digits", 5000, said.append)
    assert said[:2] == [
        "There are no runs of the experiment digits yet.",
        "The runs: http://127.0.0.1:5000/#/experiments",
    ]
    assert len(started) == 1


def test_a_tracking_server_serves_it_already(
    root: Path, started: list[tuple[list[str], str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://anna:s3cret@runs.example:8080/")
    monkeypatch.setattr(Server, "check", lambda self: None)
    monkeypatch.setattr(Server, "find", lambda self, name: "7")
    said: list[str] = []
    tracking.serve_ui(root, "digits", 5000, said.append)
    (line,) = said
    assert line.startswith("The runs: http://runs.example:8080/#/experiments/7/runs?")
    assert started == []


def test_a_server_that_is_not_there(
    root: Path, started: list[tuple[list[str], str]], monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://anna:s3cret@127.0.0.1:{free_port}")
    with pytest.raises(
        tracking.TrackingError, match=rf"MLflow at http://127\.0\.0\.1:{free_port} does not answer"
    ) as said:
        tracking.serve_ui(root, "digits", 5000, print)
    assert "s3cret" not in str(said.value)
    assert started == []


def test_a_port_that_is_taken(root: Path, started: list[tuple[list[str], str]]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        message = f"port {port}: Address already in use; take another with --port"
        with pytest.raises(tracking.TrackingError, match=message):
            tracking.serve_ui(root, "digits", port, print)
    assert started == []
