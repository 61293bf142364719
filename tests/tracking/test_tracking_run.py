"""What a run leaves in MLflow and beside it."""

import contextlib
import json
import logging
import math
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from waiting import until

from sglr import tracking
from sglr.tracking import sender, settings


def journals(root: Path) -> list[Path]:
    return list((root / ".sglr" / "journal").glob("*/journal.jsonl"))


def test_a_run_holds_everything_it_was_given(root: Path, train: Callable[..., Any], database: Any) -> None:
    figures = root / "figures"
    (figures / "small").mkdir(parents=True)
    (figures / "a.svg").write_text("<svg/>")
    (figures / "small" / "b.svg").write_text("<svg/>")
    with train(params=tracking.flatten({"train": {"lr": 0.1}}), record={"device": "cpu"}) as tracker:
        for epoch in (1, 2, 3):
            tracker.metrics({"train/loss": 1 / epoch, "val/pgd": None if epoch == 1 else 0.5}, step=epoch)
        tracker.metrics({"odd": math.nan})
        tracker.artifact(figures / "a.svg", folder="single")
        tracker.artifact(figures, folder="figures")
        # DVC may remove an out as soon as the stage has ended, and before it was sent.
        (figures / "a.svg").unlink()
        tracker.tags({"weights_md5": "abc"})

    run = database.run()
    assert run.info.run_name == "train@sglr-0"
    assert run.info.status == "FINISHED"
    assert run.data.params == {"train.lr": "0.1"}
    expected = {"stage": "train", "method": "sglr", "seed": "0", "params_hash": "p1", "weights_md5": "abc"}
    assert expected.items() <= run.data.tags.items()
    assert database.points(run, "train/loss") == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert database.points(run, "val/pgd") == [(2, 0.5), (3, 0.5)]
    assert math.isnan(database.points(run, "odd")[0][1])
    assert database.artifacts(run, "single") == {"single/a.svg"}
    assert database.artifacts(run, "figures") == {"figures/a.svg", "figures/small"}
    assert run.info.artifact_uri.startswith((root / "mlartifacts").as_uri())

    assert journals(root) == []
    record = json.loads((root / ".sglr" / "records" / "train@sglr-0.json").read_text())
    assert record["run_id"] == run.info.run_id
    assert (record["status"], record["device"], record["method"]) == ("FINISHED", "cpu", "sglr")
    assert record["started"] < record["ended"]


def test_points_carry_the_time_they_were_measured(train: Callable[..., Any], database: Any) -> None:
    with train() as tracker:
        before = time.time() * 1000
        tracker.metrics({"loss": 1.0}, step=1)
        after = time.time() * 1000
        time.sleep(0.3)
    (point,) = database.client.get_metric_history(database.run().info.run_id, "loss")
    assert before - 1 <= point.timestamp <= after


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("NaN loss"), "FAILED"),
        (SystemExit(1), "FAILED"),
        (KeyboardInterrupt(), "KILLED"),
        (SystemExit(143), "KILLED"),
        (SystemExit(0), "FINISHED"),
    ],
)
def test_how_a_run_ends_is_its_status(
    root: Path, train: Callable[..., Any], database: Any, error: BaseException, status: str
) -> None:
    def work() -> None:
        with train() as tracker:
            tracker.metrics({"loss": 1.0}, step=1)
            raise error

    with pytest.raises(type(error)):
        work()
    assert database.run().info.status == status
    assert json.loads((root / ".sglr" / "records" / "train@sglr-0.json").read_text())["status"] == status


def test_a_failed_run_is_reopened_and_repeats_no_point(root: Path, train: Callable[..., Any], database: Any) -> None:
    with contextlib.suppress(RuntimeError), train(params={"lr": "0.1"}) as tracker:
        for epoch in (1, 2):
            tracker.metrics({"loss": epoch}, step=epoch)
        tracker.headline({"best": 0.7})
        raise RuntimeError
    failed = database.run()
    with train(params={"lr": "0.1", "new": "1"}) as tracker:
        until(lambda: database.run().info.status == "RUNNING")
        for epoch in (2, 3):
            tracker.metrics({"loss": epoch}, step=epoch)
        tracker.headline({"best": 0.7})
    run = database.run()
    assert run.info.run_id == failed.info.run_id
    assert (run.info.status, run.info.start_time) == ("FINISHED", failed.info.start_time)
    assert run.info.end_time > failed.info.end_time
    assert database.points(run, "loss") == [(1, 1.0), (2, 2.0), (3, 3.0)]
    assert database.points(run, "best") == [(0, 0.7)]
    assert run.data.params == {"lr": "0.1", "new": "1"}
    assert journals(root) == []


def test_another_key_experiment_or_a_finished_run_begins_a_new_one(train: Callable[..., Any], database: Any) -> None:
    for changes in ({}, {}, {"key": "k2"}):
        with train(**changes):
            pass
    with train(experiment="other"):
        pass
    assert len({run.info.run_id for run in database.runs()}) == 3
    assert len(database.runs("other")) == 1


def test_logging_waits_for_no_server(train: Callable[..., Any], database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def held(root: Path) -> Any:
        assert logged.wait(60)
        return connect(root)

    logged, connect = threading.Event(), sender.connect
    monkeypatch.setattr(sender, "connect", held)
    with train() as tracker:
        for step in range(1000):
            tracker.metrics({"train/loss": 0.5, "val/pgd": 0.25}, step=step)
        logged.set()
    assert len(database.points(database.run(), "val/pgd")) == 1000


def test_thousands_of_points_and_params_go_in_calls_mlflow_takes(train: Callable[..., Any], database: Any) -> None:
    with train(params={f"p{number}": str(number) for number in range(250)}) as tracker:
        tracker.metrics({f"m{number}": number for number in range(1500)}, step=1)
        for step in range(1200):
            tracker.metrics({"loss": step}, step=step)
    run = database.run()
    assert len(run.data.params) == 250
    assert len(database.metrics(run)) == 1501
    assert database.points(run, "loss") == [(step, float(step)) for step in range(1200)]


def test_off_means_nothing_but_the_record(
    root: Path, train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SGLR_TRACKING", "off")
    with train(record={"device": "cuda"}) as tracker:
        tracker.metrics({"loss": 1.0}, step=1)
        tracker.tags({"a": "b"})
        tracker.artifact(root / "missing.png")
        tracker.headline({"best": 1.0})
    record = json.loads((root / ".sglr" / "records" / "train@sglr-0.json").read_text())
    assert (record["run_id"], record["device"], record["status"]) == (None, "cuda", "FINISHED")
    assert not (root / ".sglr" / "journal").exists()


def test_without_mlflow_a_run_is_not_tracked_and_that_is_said_once(
    root: Path, train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(settings, "installed", lambda: False)
    settings._warn_not_installed.cache_clear()
    for _ in range(2):
        with train() as tracker:
            tracker.metrics({"loss": 1.0})
    assert [record.getMessage() for record in caplog.records] == [
        "MLflow is not installed: runs are not tracked. Install mlflow, or set SGLR_TRACKING=off."
    ]
    assert not (root / ".sglr" / "journal").exists()


def test_importing_tracking_imports_neither_mlflow_nor_torch() -> None:
    code = "import sys, sglr.tracking; sys.exit(any(name in sys.modules for name in ('mlflow', 'torch', 'psutil')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_journal_that_cannot_be_written_does_not_end_the_run(
    root: Path, train: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    (root / ".sglr").write_text("in the way")
    with caplog.at_level(logging.WARNING, "sglr.tracking"), train() as tracker:
        tracker.metrics({"loss": 1.0}, step=1)
    assert "train@sglr-0 is not tracked: cannot write a journal" in caplog.text
    assert "no record of train@sglr-0" in caplog.text


def test_system_metrics_are_recorded_for_training(
    train: Callable[..., Any], database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SGLR_SYSTEM_METRICS")
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.2")
    with train():
        until(lambda: database.runs() and database.run().data.metrics)
    with train(stage="evaluate", key="other", tags={}):
        time.sleep(1)
    trained, evaluated = database.runs()
    assert trained.data.metrics["system/system_memory_usage_percentage"] > 0
    assert database.metrics(evaluated) == {}
