"""Real servers and databases that are away, slow, refusing, locked or killed: the run ends, and nothing is lost."""

import contextlib
import http.server
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from waiting import until

from sglr import tracking
from sglr.config import ConfigError
from sglr.tracking import journal

EPOCHS = 20
EVERY = [(epoch, float(epoch)) for epoch in range(1, EPOCHS + 1)]
Train = Callable[..., Any]


def log(tracker: tracking.Tracker, first: int = 1, last: int = EPOCHS, pause: float = 0) -> None:
    for epoch in range(first, last + 1):
        tracker.metrics({"loss": epoch, "val/pgd": 0.5}, step=epoch)
        time.sleep(pause)


def test_a_server_that_must_be_there_and_is_not(
    root: Path, train: Train, monkeypatch: pytest.MonkeyPatch, free_port: int
):
    monkeypatch.setenv("SGLR_TRACKING", "required")
    with train() as tracker:
        log(tracker)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://anna:s3cret@127.0.0.1:{free_port}")
    began: list[int] = []
    expected = r"SGLR_TRACKING=required, but tracking at http://127\.0\.0\.1:\d+ fails"
    with pytest.raises(ConfigError, match=expected) as said, train(item="train@at-0"):
        began.append(1)
    assert not began
    assert "`sglr sync`" in str(said.value)
    assert "s3cret" not in str(said.value)
    assert journal.folders(root) == []


def test_a_database_that_was_copied_says_where_files_go(
    root: Path, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    with train():
        pass
    assert "copied or moved" not in caplog.text
    (tmp_path / "copy").mkdir()
    shutil.copy(root / "mlflow.db", tmp_path / "copy")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'copy' / 'mlflow.db'}")
    with train(item="train@at-0", key="k2"):
        pass
    assert f"files of the experiment digits go to {(root / 'mlartifacts' / 'digits').as_uri()}" in caplog.text
    assert f"{tmp_path / 'copy' / 'mlflow.db'} was copied or moved" in caplog.text


class Answering(http.server.BaseHTTPRequestHandler):
    """Says of everything, after a while, that it cannot."""

    status, seconds = 503, 0.0

    def do_GET(self) -> None:
        time.sleep(self.seconds)
        with contextlib.suppress(OSError):
            self.send_response(self.status)
            self.end_headers()

    do_POST = do_PATCH = do_GET  # noqa: N815 (the base class's names)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.mark.parametrize(
    ("status", "seconds"),
    [
        pytest.param(503, 0.0, id="down"),
        pytest.param(403, 0.0, id="refusing"),
        pytest.param(500, 3.0, id="slow", marks=pytest.mark.slow),
    ],
)
def test_a_server_that_answers_with_errors(
    root: Path, train: Train, database: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    status: int, seconds: float,
):  # fmt: skip
    handler = type("Handler", (Answering,), {"status": status, "seconds": seconds})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("SGLR_TRACKING_WAIT", "1")
        with train() as tracker:
            log(tracker)
        server.shutdown()
    # Those of the epochs, and the run's own time and memory.
    assert f"{2 * EPOCHS + 2} points and 0 files are not on the tracking server" in caplog.text
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    send_all(root)
    assert database.points(database.run(), "loss") == EVERY


def send_all(root: Path) -> None:
    """`sglr sync`, again where a sender of the ended run still holds its journal."""
    deadline = time.monotonic() + 60
    while (report := tracking.sync(root)).missing or report.failed:
        assert time.monotonic() < deadline, report
        time.sleep(0.2)
    assert journal.folders(root) == []


def test_a_database_that_another_program_locks(
    root: Path, train: Train, database: Any, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):  # fmt: skip
    monkeypatch.setenv("SGLR_TRACKING_WAIT", "1")
    with train() as tracker:
        log(tracker, last=5)
        until(lambda: database.runs() and len(database.points(database.run(), "loss")) == 5)
        other = sqlite3.connect(root / "mlflow.db", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        log(tracker, first=6)
    assert "are not on the tracking server" in caplog.text
    other.rollback()
    other.close()
    send_all(root)
    assert database.points(database.run(), "loss") == EVERY
    assert database.run().info.status == "FINISHED"


@contextlib.contextmanager
def mlflow_server(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A real server on the project's database, once it answers; killed at the end."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "kept")]
    with (folder / "server.txt").open("ab") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, start_new_session=True, cwd=folder)
    try:
        deadline = time.monotonic() + 120
        while True:
            with contextlib.suppress(OSError):
                if urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).status == 200:
                    break
            assert process.poll() is None, (folder / "server.txt").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


@pytest.mark.slow
def test_a_real_server_is_killed_in_the_middle(
    root: Path,
    train: Train,
    database: Any,
    monkeypatch: pytest.MonkeyPatch,
    free_port: int,
):
    """Its credentials are in no file of the project, nor in its database."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://anna-user:s3cret-in-uri@127.0.0.1:{free_port}")
    monkeypatch.setenv("SGLR_SOMETHING", "s3cret-else")
    with train(params={"lr": "0.1"}) as tracker:
        with mlflow_server(root, free_port) as server:
            log(tracker, last=8, pause=0.05)
            until(lambda: database.runs() and len(database.points(database.run(), "loss")) >= 3)
            os.killpg(server.pid, signal.SIGKILL)
            log(tracker, first=9, last=14)
        log(tracker, first=15)
        (root / "a.txt").write_text("a")
        tracker.artifact(root / "a.txt")
    assert len(database.points(database.run(), "loss")) < EPOCHS
    with mlflow_server(root, free_port):
        send_all(root)
        assert tracking.sync(root) == tracking.SyncReport()
    run = database.run()
    assert (run.info.status, run.data.params) == ("FINISHED", {"lr": "0.1"})
    assert database.points(run, "loss") == EVERY
    for path in root.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert b"s3cret" not in content, path
            assert b"anna-user" not in content, path
