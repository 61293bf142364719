"""Whatever is killed or fails: no point missing, none double, and the run itself never notices."""

import collections
import contextlib
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from waiting import until

from sglr import files, tracking
from sglr.tracking import journal, parents, server
from sglr.tracking.delivery import DeliveryState
from sglr.tracking.resend import unsent
from sglr.tracking.server import Point, Server

EPOCHS = 30
EVERY = [(epoch, float(epoch)) for epoch in range(1, EPOCHS + 1)]

SCRIPT = """
import os, signal, sys, time
from pathlib import Path
from mlflow.tracking import MlflowClient
from sglr import tracking

def killing(method, count):
    # SIGKILL when the method has done its work for the count-th time and nobody knows of it yet.
    original, calls = getattr(MlflowClient, method), []
    def wrapper(*args, **kwargs):
        result = original(*args, **kwargs)
        calls.append(1)
        if len(calls) == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    setattr(MlflowClient, method, wrapper)

if sys.argv[1] != "none":
    killing(sys.argv[1], int(sys.argv[2]))
tags = {"method": "sglr", "seed": "0", "params_hash": "p1"}
run = {"experiment": "digits", "stage": "train", "item": sys.argv[3], "tags": tags, "key": "k1"}
with tracking.run(root=Path.cwd(), **run) as tracker:
    for epoch in range(1, 31):
        tracker.metrics({"loss": epoch, "val/pgd": 0.5}, step=epoch)
        time.sleep(0.05)
        while epoch == 5 and not any('"run_id": "' in note.read_text() for note in Path.cwd().rglob("sent.json")):
            time.sleep(0.05)
    time.sleep(10 if sys.argv[1] != "none" else 0)
"""


def start(root: Path, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", SCRIPT, *arguments], cwd=root, env=dict(os.environ))


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.setenv("PYTHONPATH", str(request.config.rootpath))


def log_all(tracker: tracking.Tracker) -> None:
    for epoch in range(1, EPOCHS + 1):
        tracker.metrics({"loss": epoch, "val/pgd": 0.5}, step=epoch)


def only_journal(root: Path) -> Path:
    (folder,) = journal.folders(root)
    return folder


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> collections.Counter[tuple[str, int]]:
    """How often each (metric, step) has been handed to MLflow. (Its SQL store drops exact repetitions by itself.)"""
    from mlflow.tracking import MlflowClient

    counts: collections.Counter[tuple[str, int]] = collections.Counter()
    original = MlflowClient.log_batch

    def count(client: Any, run_id: str, metrics: Any = (), **rest: Any) -> Any:
        counts.update((point.key, point.step) for point in metrics)
        return original(client, run_id, metrics=metrics, **rest)

    monkeypatch.setattr(MlflowClient, "log_batch", count)
    return counts


@pytest.mark.parametrize(("method", "count"), [("log_batch", 3), pytest.param("create_run", 1, marks=pytest.mark.slow)])
def test_after_sigkill_the_run_goes_on_where_it_was(
    root: Path,
    train: Callable[..., Any],
    database: Any,
    sent: collections.Counter[tuple[str, int]],
    method: str,
    count: int,
) -> None:
    assert start(root, method, str(count), "train@sglr-0").wait(60) == -signal.SIGKILL
    killed = database.run()
    assert killed.info.status == "RUNNING"
    stored = {("loss", step) for step, _ in database.points(killed, "loss")}
    assert bool(stored) == (method == "log_batch")
    journalled = len((only_journal(root) / "journal.jsonl").read_bytes().splitlines())

    with train() as tracker:
        log_all(tracker)
    run = database.run()
    assert run.info.run_id == killed.info.run_id
    assert run.info.status == "FINISHED"
    assert database.points(run, "loss") == EVERY
    assert not stored & sent.keys()
    assert max(sent.values()) == 1
    assert journalled > 3


def test_killed_at_any_moment_no_line_is_lost_or_read_in_half(
    root: Path, train: Callable[..., Any], database: Any
) -> None:
    with contextlib.suppress(RuntimeError), train() as tracker:
        tracker.metrics({"loss": 1.0}, step=1)
        raise RuntimeError
    with (only_journal(root) / "journal.jsonl").open("ab") as file:
        file.write(b'{"t": 1, "kind": "metrics", "step": 2, "values": {"lo')
    with train() as tracker:
        tracker.metrics({"loss": 2.0}, step=2)
    assert database.points(database.run(), "loss") == [(1, 1.0), (2, 2.0)]


def test_a_dead_server_neither_blocks_nor_loses(
    root: Path,
    train: Callable[..., Any],
    database: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    free_port: int,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://anna:s3cret@127.0.0.1:{free_port}")
    monkeypatch.setenv("SGLR_TRACKING_WAIT", "600")  # for one that works
    with caplog.at_level(logging.WARNING, "sglr.tracking"):
        with train(params={"lr": "0.1"}) as tracker:
            log_all(tracker)
            (root / "a.txt").write_text("a")
            tracker.artifact(root / "a.txt")
            until(lambda: caplog.records)
            began = time.monotonic()
        assert time.monotonic() - began < 60
        assert tracking.sync(root).failed.keys() == {"train@sglr-0"}
    first, last = (record.getMessage() for record in caplog.records)
    assert first.count("Connection refused") == last.count("Connection refused") == 1
    assert "tracking at http://127.0.0.1" in first
    assert last.startswith("train@sglr-0: 62 points and 1 files are not on the tracking server")
    assert last.endswith("`sglr sync` sends them.")
    record = root / ".sglr" / "records" / "train@sglr-0.json"
    assert json.loads(record.read_text())["run_id"] is None
    written = b"".join(path.read_bytes() for path in (root / ".sglr").rglob("*") if path.is_file()).decode()
    assert "s3cret" not in written + caplog.text

    (root / "a.txt").unlink()
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    report = tracking.sync(root)
    assert (report.sent, report.missing, report.items, report.failed) == (63, 0, ["train@sglr-0"], {})
    run = database.run()
    assert (run.info.status, run.data.params) == ("FINISHED", {"lr": "0.1"})
    assert database.points(run, "loss") == EVERY
    assert database.artifacts(run) == {"a.txt"}
    assert json.loads(record.read_text())["run_id"] == run.info.run_id
    assert journal.folders(root) == []
    assert tracking.sync(root) == tracking.SyncReport()
    assert len(database.runs()) == 1


def test_a_server_that_never_answers_does_not_hold_the_run_up(
    train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("SGLR_TRACKING_WAIT", "1")
        with train() as tracker:
            log_all(tracker)
    assert "62 points and 0 files are not on the tracking server (not done after 1 s)" in caplog.text


@pytest.mark.parametrize(
    ("failures", "stored_first"),
    [(2, False), (2, True), *(pytest.param(1000, each, marks=pytest.mark.slow) for each in (False, True))],
)
def test_a_server_that_fails_in_the_middle(
    root: Path,
    train: Callable[..., Any],
    database: Any,
    sent: collections.Counter[tuple[str, int]],
    monkeypatch: pytest.MonkeyPatch,
    stored_first: bool,
    failures: int,
) -> None:
    from mlflow.tracking import MlflowClient

    original, calls = MlflowClient.log_batch, []

    def failing(client: Any, *args: Any, metrics: Any = (), **kwargs: Any) -> None:
        calls.append(len(metrics))
        broken = metrics and 2 < len(calls) <= 2 + failures
        if not broken or stored_first:
            original(client, *args, metrics=metrics, **kwargs)
        if broken:
            raise ConnectionError("connection reset by peer")

    monkeypatch.setattr(MlflowClient, "log_batch", failing)
    with train() as tracker:
        for epoch in range(1, EPOCHS + 1):
            tracker.metrics({"loss": epoch, "val/pgd": 0.5}, step=epoch)
            time.sleep(0.05)
    if failures == 1000 and not stored_first:
        assert database.run().info.status == "RUNNING"
        assert journal.folders(root) != []
        monkeypatch.setattr(MlflowClient, "log_batch", original)
    # A slow machine may need more than the time a run waits for a server that has failed.
    until(lambda: tracking.sync(root).missing == 0 and not journal.folders(root))
    run = database.run()
    assert run.info.status == "FINISHED"
    assert database.points(run, "loss") == EVERY
    assert set(sent.values()) == {1}
    assert journal.folders(root) == []


class ForgetfulServer:
    """A server that stores whatever it is given, twice if told twice, and breaks after storing every third call."""

    def __init__(self) -> None:
        self.stored_points: list[Point] = []
        self.runs = 0
        self.calls = 0

    def experiment(self, name: str) -> str:
        return name

    def newest(self, *_: Any) -> str | None:
        return "run" if self.runs else None

    def create(self, *_: Any) -> str:
        self.runs += 1
        self._break()
        return "run"

    def status(self, run_id: str) -> str:
        return "RUNNING"

    def set_status(self, *_: Any, **__: Any) -> None:
        self._break()

    def stored(self, run_id: str, metric: str) -> set[tuple[int, int]]:
        return {(step, time) for key, _, time, step in self.stored_points if key == metric}

    def log(self, run_id: str, *, metrics: list[Point] = (), **_: Any) -> None:  # type: ignore[assignment]
        # Half of a batch can arrive, too: MLflow takes at most a thousand points a call.
        half = len(metrics) // 2
        self.stored_points += metrics[:half]
        self._break()
        self.stored_points += metrics[half:]
        self._break()

    def _break(self) -> None:
        self.calls += 1
        if self.calls % 3 == 0:
            raise ConnectionError


def test_a_store_that_keeps_repetitions_gets_none(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sglr.tracking.delivery._BATCH", 7)
    header = {"experiment": "digits", "stage": "train", "item": "train@sglr-0", "tags": {}, "parent": None}
    server = ForgetfulServer()

    def attempt(folder: Path) -> bool:
        # Every attempt starts from what the last one noted, as after a kill.
        try:
            parents.delivery(root, folder, server).drain()  # type: ignore[arg-type]
        except ConnectionError:
            return False
        return True

    with journal.claim(root, header, "k1") as written:
        for step in range(100):
            written.metrics({"loss": step, "acc": step}, step=step)
            if step % 5 == 0:
                attempt(written.folder)
        written.append("end", status="FINISHED")
    assert any(attempt(written.folder) for _ in range(100))
    assert server.runs == 1
    assert collections.Counter((key, step) for key, _, _, step in server.stored_points) == {
        (key, step): 1 for key in ("loss", "acc") for step in range(100)
    }


def test_a_run_deleted_meanwhile_is_made_anew_and_whole(train: Callable[..., Any], database: Any) -> None:
    with train() as tracker:
        tracker.metrics({"loss": 1.0}, step=1)
        until(lambda: database.runs() and database.run().data.metrics)
        deleted = database.run().info.run_id
        database.client.delete_run(deleted)
        tracker.metrics({"loss": 2.0}, step=2)
    run = database.run()
    assert run.info.run_id != deleted
    assert database.points(run, "loss") == [(1, 1.0), (2, 2.0)]


def test_a_value_the_server_refuses_does_not_block_the_others(
    root: Path, train: Callable[..., Any], database: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with contextlib.suppress(RuntimeError), train(params={"lr": "0.1"}):
        raise RuntimeError
    database.client.log_param(database.run().info.run_id, "epochs", 60)
    with train(params={"lr": "0.1", "epochs": "70", "batch": "128"}) as tracker:
        tracker.metrics({"loss": 1.0}, step=1)
    run = database.run()
    assert run.data.params == {"lr": "0.1", "epochs": "60", "batch": "128"}
    assert database.points(run, "loss") == [(1, 1.0)]
    assert "MLflow refuses params 'epochs'" in caplog.text
    assert journal.folders(root) == []


def test_sync_leaves_a_live_run_alone_and_ends_a_killed_one_only_when_asked(
    root: Path, train: Callable[..., Any], database: Any
) -> None:
    process = start(root, "set_terminated", "1", "train@sglr-0")
    until(lambda: journal.folders(root) and DeliveryState.read(only_journal(root)).run_id)
    assert tracking.sync(root).running == ["train@sglr-0"]
    process.kill()
    process.wait()
    report = tracking.sync(root)
    assert report.interrupted == ["train@sglr-0"]
    assert report.missing == 0
    assert database.run().info.status == "RUNNING"
    assert tracking.sync(root, end_interrupted=True).interrupted == []
    assert database.run().info.status == "KILLED"
    with train() as tracker:
        log_all(tracker)
    assert database.run().info.status == "FINISHED"
    assert database.points(database.run(), "loss") == EVERY


def test_a_finished_run_that_waits_is_not_mixed_with_its_repetition(
    root: Path, train: Callable[..., Any], database: Any, monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port}")
    monkeypatch.setenv("SGLR_TRACKING_WAIT", "0")
    for value in (1.0, 2.0):
        with train() as tracker:
            tracker.metrics({"loss": value}, step=1)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    # Nobody waited for the senders: on a busy machine one of them may still be failing, and hold its lock.
    deadline = time.monotonic() + 60
    while tracking.sync(root).missing and time.monotonic() < deadline:
        time.sleep(0.2)
    assert [database.points(run, "loss") for run in database.runs()] == [[(1, 1.0)], [(1, 2.0)]]


def test_repetitions_that_nobody_sends_are_not_piled_up(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "_MOST", 3)
    header = {"experiment": "digits", "stage": "train", "item": "train@sglr-0", "tags": {}, "parent": None}
    for _ in range(3):
        with journal.claim(root, header, "k1") as written:
            written.append("end", status="FINISHED")
    with (
        pytest.raises(files.FileError, match=r"3 finished runs of it wait to be sent \(sglr sync\)"),
        journal.claim(root, header, "k1"),
    ):
        pass


@pytest.mark.slow
def test_two_processes_create_the_database_at_once(root: Path, database: Any) -> None:
    new = root / "new"
    new.mkdir()
    processes = [start(new, "none", "0", f"train@sglr-{seed}") for seed in (0, 1)]
    assert [process.wait(90) for process in processes] == [0, 0]
    database = type(database)(new)
    runs = database.runs()
    assert {run.info.run_name for run in runs} == {"train@sglr-0", "train@sglr-1"}
    assert all(database.points(run, "loss") == EVERY for run in runs)
    assert journal.folders(new) == []


@pytest.mark.slow
def test_a_database_is_made_whole_or_not_at_all(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full in the middle of MLflow's many migrations, or a kill, leaves what it cannot go on with."""
    new = root / "new"
    new.mkdir()
    real = server.Server.check

    def full(self: server.Server) -> None:
        real(self)
        raise OSError("disk I/O error")

    monkeypatch.setattr(server.Server, "check", full)
    with pytest.raises(OSError, match="disk I/O error"):
        server.connect(new)
    assert [path.name for path in new.iterdir()] == ["mlflow.db.lock"]
    monkeypatch.setattr(server.Server, "check", real)
    (new / "mlflow.db.new-0").write_bytes(b"what a kill left")
    assert server.connect(new).experiment("tiny")
    assert sorted(path.name for path in new.iterdir()) == ["mlflow.db", "mlflow.db.lock"]


def test_a_full_disk_costs_points_but_not_the_run(
    root: Path,
    train: Callable[..., Any],
    database: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Full:
        """A file on a disk with room for twenty more bytes."""

        def __init__(self, file: Any) -> None:
            self._file, self._room = file, 20

        def write(self, data: bytes) -> int:
            if self._room == 0:
                raise OSError(28, "No space left on device")
            written = self._file.write(data[: self._room])
            self._room -= written
            return int(written)

        def truncate(self, size: int) -> None:
            self._file.truncate(size)

    with train() as tracker:
        tracker.metrics({"loss": 1.0}, step=1)
        file, tracker._file = tracker._file, Full(tracker._file)
        tracker.metrics({"loss": 2.0}, step=2)
        tracker.metrics({"loss": 3.0}, step=3)
        tracker._file = file
        tracker.metrics({"loss": 4.0}, step=4)
    assert caplog.text.count("No space left on device") == 1
    assert database.points(database.run(), "loss") == [(1, 1.0), (4, 4.0)]
    assert database.run().info.status == "FINISHED"


@pytest.mark.slow
def test_progress_that_cannot_be_written_is_a_failure_like_any_other(
    root: Path, train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any) -> None:
        raise files.FileError("cannot write sent.json: No space left on device")

    monkeypatch.setattr(DeliveryState, "write", full)
    with train() as tracker:
        tracker.metrics({"loss": 1.0}, step=1)
    assert "3 points and 0 files are not on the tracking server (cannot write sent.json" in caplog.text


def test_a_damaged_note_of_what_was_sent_makes_no_second_run(
    root: Path, train: Callable[..., Any], database: Any
) -> None:
    with contextlib.suppress(RuntimeError), train() as tracker:
        log_all(tracker)
        raise RuntimeError
    (only_journal(root) / "sent.json").write_text('{"run_id": ')
    with train() as tracker:
        log_all(tracker)
    assert database.run().info.status == "FINISHED"
    assert database.points(database.run(), "loss") == EVERY


@pytest.mark.slow
def test_an_experiment_that_was_deleted(
    root: Path, train: Callable[..., Any], database: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Its runs wait; nothing can be sent before it is there again."""
    with train():
        pass
    client = database.client
    identifier = database.run().info.experiment_id
    client.delete_experiment(identifier)
    with caplog.at_level(logging.WARNING, "sglr.tracking"), train(key="k2") as tracker:
        tracker.metrics({"x": 1.0}, step=1)
    assert f"the experiment digits was deleted in MLflow: `mlflow experiments restore -x {identifier}`" in caplog.text
    client.restore_experiment(identifier)
    tracking.sync(root)
    assert len(client.search_runs([identifier])) == 2


@pytest.mark.slow
def test_a_journal_that_was_removed(
    root: Path, train: Callable[..., Any], database: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "sglr.tracking"), train():
        shutil.rmtree(root / ".sglr")
    assert "train@sglr-0: its journal is gone or damaged; what was not sent yet is lost." in caplog.text


def test_a_place_for_files_that_is_not_there_holds_up_no_points(
    root: Path, train: Callable[..., Any], database: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A database brought from another machine keeps the place of files there; they wait, and nothing else does."""
    place = root / "of-another-machine"
    place.write_text("no folder can be made here")
    database.client.create_experiment("digits", artifact_location=(place / "digits").as_uri())
    for name in ("a.txt", "b.txt"):
        (root / name).write_text(name)
    with caplog.at_level(logging.WARNING, "sglr.tracking"), train() as tracker:
        tracker.artifact(root / "a.txt", "notes")
        tracker.metrics({"loss": 1.0}, step=1)
        tracker.artifact(root / "b.txt", "notes")
        tracker.metrics({"loss": 0.5}, step=2)
    run = database.run()
    assert run.info.status == "FINISHED"
    assert database.points(run, "loss") == [(1, 1.0), (2, 0.5)]
    assert caplog.text.count("MLflow cannot store") == 2
    assert f"MLflow cannot store {root / 'a.txt'} (" in caplog.text
    assert "train@sglr-0: 0 points and 2 files are not on the tracking server (" in caplog.text
    report = tracking.sync(root)
    assert (report.sent, report.missing, list(report.failed)) == (0, 2, ["train@sglr-0"])
    assert unsent(root) == 1
    place.unlink()
    (root / "a.txt").unlink()  # a copy is kept
    assert str(tracking.sync(root)) == "2 points and files sent, 0 missing.\ntrain@sglr-0: sent completely"
    assert database.artifacts(database.run(), "notes") == {"notes/a.txt", "notes/b.txt"}
    assert database.points(database.run(), "loss") == [(1, 1.0), (2, 0.5)]
    assert not journal.folders(root)


def no_room(*_: Any) -> None:
    """In the place of ``Server.artifact``."""
    raise OSError("no room for files")


def test_files_put_off_go_to_the_run_that_is_made_anew(
    root: Path, train: Callable[..., Any], database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "a.txt").write_text("a")

    with monkeypatch.context() as patch:
        patch.setattr(Server, "artifact", no_room)
        with train() as tracker:
            tracker.metrics({"loss": 1.0}, step=1)
            tracker.artifact(root / "a.txt", "notes")
    database.client.delete_run(database.run().info.run_id)
    tracking.sync(root)
    run = database.run()
    assert database.artifacts(run, "notes") == {"notes/a.txt"}
    assert (database.points(run, "loss"), run.info.status) == ([(1, 1.0)], "FINISHED")


def test_a_file_put_off_does_not_replace_a_newer_one(
    root: Path, train: Callable[..., Any], database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first run fails, and its file cannot be stored; repeated, the item stores another of that name."""
    (root / "a.txt").write_text("old")

    with monkeypatch.context() as patch, contextlib.suppress(RuntimeError):
        patch.setattr(Server, "artifact", no_room)
        with train() as tracker:
            tracker.artifact(root / "a.txt", "notes")
            raise RuntimeError("the run fails")
    (root / "a.txt").write_text("new")
    with train() as tracker:
        tracker.artifact(root / "a.txt", "notes")
    run = database.run()
    stored = database.client.download_artifacts(run.info.run_id, "notes/a.txt", str(root))
    assert (Path(stored).read_text(), run.info.status) == ("new", "FINISHED")
    assert not journal.folders(root)


def test_a_file_keeps_its_copy_until_it_is_noted_as_stored(
    root: Path, train: Callable[..., Any], database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "a.txt").write_text("a")
    monkeypatch.setenv("SGLR_TRACKING_WAIT", "1")
    original = DeliveryState.write

    def full(progress: DeliveryState, folder: Path) -> None:
        if progress.offset and database.artifacts(database.run(), "notes"):
            raise OSError("no space left")
        original(progress, folder)

    with monkeypatch.context() as patch:
        patch.setattr(DeliveryState, "write", full)
        with train() as tracker:
            tracker.artifact(root / "a.txt", "notes")
    (root / "a.txt").unlink()
    assert tracking.sync(root).missing == 0
    assert database.artifacts(database.run(), "notes") == {"notes/a.txt"}
