"""MLflow's UI, at the curves of this project's trainings."""

import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from sglr.tracking.server import connect
from sglr.tracking.settings import TrackingError, address, prepare_environment, shown


def serve_ui(root: Path, experiment: str, port: int, say: Callable[[str], object]) -> None:
    """Say where the runs of ``experiment`` are in MLflow's UI, and become its server.

    A tracking server serves it already: then only the address is said. Raises TrackingError when MLflow is missing or
    its store does not answer.
    """
    prepare_environment()
    uri = address(root)
    served = uri.startswith(("http://", "https://"))
    try:
        # MLflow opens with its views for language models; this page is the one with the curves.
        found = connect(root).find(experiment)
    except ImportError:
        raise TrackingError("the UI needs MLflow: pip install mlflow") from None
    except Exception as error:
        raise TrackingError(f"MLflow at {shown(uri)} does not answer: {shown(error)}") from error
    if not served:
        _require_free(port)
    page = "/#/experiments"
    if found:
        page += f"/{found}/runs?compareRunsMode=CHART&workflowType=machine_learning"
    else:
        say(f"There are no runs of the experiment {experiment} yet.")
    say(f"The runs: {shown(uri).rstrip('/') if served else f'http://127.0.0.1:{port}'}{page}")
    if not served:
        say("Starting MLflow's server for it, which takes some seconds; Ctrl-C stops it.")
        os.execve(
            sys.executable,
            [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"],
            # Not as an argument: it may hold a password, and everybody on this machine can list those.
            os.environ | {"MLFLOW_BACKEND_STORE_URI": uri},
        )


def _require_free(port: int) -> None:
    """TrackingError where something listens there already."""
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(("127.0.0.1", port))
        except OSError as error:
            raise TrackingError(f"port {port}: {error.strerror}; take another with --port") from None
