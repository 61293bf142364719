"""Evaluations and analyses hang below the training run whose weights they used."""

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from waiting import until

from sglr import tracking
from sglr.tracking import journal, parents
from sglr.tracking.server import connect

HISTORY = [
    {"phase": "warmup", "epoch": 0, "lr": 0.05, "train/loss": 2.0, "val/pgd": None},
    {"phase": "train", "epoch": 1, "lr": 0.1, "train/loss": 1.5, "val/pgd": 0.25},
    {"phase": "train", "epoch": 2, "lr": 0.1, "train/loss": 1.0, "val/pgd": 0.5},
]


def query(**changes: Any) -> tracking.ParentQuery:
    plain = {"method": "sglr", "seed": "0", "params_hash": "p1", "weights_md5": "w1"}
    return tracking.ParentQuery(**(plain | changes), history=HISTORY, params={"train.lr": "0.1"})


@pytest.fixture
def evaluate(root: Path) -> Callable[..., Any]:
    """``tracking.run`` of an evaluation."""

    def start(**changes: Any) -> Any:
        plain = {"experiment": "digits", "stage": "evaluate", "item": "evaluate@sglr-0", "key": "e1", "parent": query()}
        return tracking.run(root=root, **(plain | changes))

    return start


def named(database: Any, name: str) -> list[Any]:
    return [run for run in database.runs() if run.info.run_name == name]


def test_a_child_below_its_training_run(train: Callable[..., Any], evaluate: Callable[..., Any], database: Any) -> None:
    for weights in ("w0", "w1", "w2"):
        with train() as tracker:
            tracker.tags({"weights_md5": weights})
    with contextlib.suppress(RuntimeError), train() as tracker:
        tracker.tags({"weights_md5": "w1"})
        raise RuntimeError("the newest, but not finished")
    with evaluate() as tracker:
        tracker.headline({"test/pgd20": 0.5})
        tracker.metrics({"test/fgsm": 0.75})
    (child,) = named(database, "evaluate@sglr-0")
    parent = database.client.get_run(child.data.tags["mlflow.parentRunId"])
    assert (parent.info.run_name, parent.info.status) == ("train@sglr-0", "FINISHED")
    assert parent.data.tags["weights_md5"] == "w1"
    assert database.metrics(parent) == {"test/pgd20": 0.5}
    assert database.metrics(child) == {"test/pgd20": 0.5, "test/fgsm": 0.75}
    assert len(database.runs()) == 5


def test_a_later_evaluation_overrides_the_parents_headline(
    train: Callable[..., Any], evaluate: Callable[..., Any], database: Any
) -> None:
    with train() as tracker:
        tracker.tags({"weights_md5": "w1"})
    for key, value in (("e1", 0.5), ("e2", 0.25)):
        with evaluate(key=key) as tracker:
            tracker.headline({"test/pgd20": value})
    (parent,) = named(database, "train@sglr-0")
    assert database.metrics(parent) == {"test/pgd20": 0.25}
    assert len(named(database, "evaluate@sglr-0")) == 2


def test_a_resumed_evaluation_logs_the_headline_once(
    train: Callable[..., Any], evaluate: Callable[..., Any], database: Any
) -> None:
    with train() as tracker:
        tracker.tags({"weights_md5": "w1"})
    with contextlib.suppress(KeyboardInterrupt), evaluate() as tracker:
        tracker.headline({"test/natural": 0.9})
        raise KeyboardInterrupt
    with evaluate() as tracker:
        tracker.headline({"test/natural": 0.9, "test/pgd20": 0.5})
    (parent,) = named(database, "train@sglr-0")
    assert database.points(parent, "test/natural") == [(0, 0.9)]
    assert database.points(parent, "test/pgd20") == [(0, 0.5)]
    assert len(named(database, "evaluate@sglr-0")) == 1


def test_a_training_from_the_cache_is_restored_with_its_history(evaluate: Callable[..., Any], database: Any) -> None:
    with evaluate() as tracker:
        tracker.headline({"test/pgd20": 0.5})
    with evaluate(stage="analyze", item="analyze@sglr-0"):
        pass
    (parent,) = named(database, "train@sglr-0")
    expected = {"restored": "true", "stage": "train", "method": "sglr", "seed": "0", "weights_md5": "w1"}
    assert expected.items() <= parent.data.tags.items()
    assert (parent.info.status, parent.data.params) == ("FINISHED", {"train.lr": "0.1"})
    assert database.points(parent, "train/loss") == [(0, 2.0), (1, 1.5), (2, 1.0)]
    assert database.points(parent, "val/pgd") == [(1, 0.25), (2, 0.5)]
    assert set(parent.data.metrics) == {"lr", "train/loss", "val/pgd", "test/pgd20"}
    for name in ("evaluate@sglr-0", "analyze@sglr-0"):
        (child,) = named(database, name)
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id


def test_a_training_run_that_waits_here_is_sent_rather_than_restored(
    train: Callable[..., Any], evaluate: Callable[..., Any], database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("SGLR_TRACKING_WAIT", "0")
    with train() as tracker:
        tracker.metrics({"train/loss": 1.0}, step=1)
        tracker.tags({"weights_md5": "w1"})
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.delenv("SGLR_TRACKING_WAIT")
    with evaluate():
        pass
    (parent,) = named(database, "train@sglr-0")
    assert "restored" not in parent.data.tags
    assert database.points(parent, "train/loss") == [(1, 1.0)]


def test_a_restoration_cut_off_is_finished_not_repeated(
    root: Path, database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking import MlflowClient

    def refuse(*_: Any, **__: Any) -> None:
        raise ConnectionError

    server = connect(root)
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "set_terminated", refuse)
        with pytest.raises(ConnectionError):
            parents.find_or_restore(root, server, "digits", query())
    assert database.run().info.status == "RUNNING"
    assert parents.find_or_restore(root, server, "digits", query()) == database.run().info.run_id
    assert database.points(database.run(), "train/loss") == [(0, 2.0), (1, 1.5), (2, 1.0)]
    assert journal.folders(root) == []


def test_two_children_at_once_restore_one_parent(root: Path, database: Any) -> None:
    server = connect(root)
    found: list[str] = []
    together = threading.Barrier(2)

    def look() -> None:
        together.wait()
        found.append(parents.find_or_restore(root, server, "digits", query()))

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [database.run().info.run_id] * 2


def test_other_params_or_a_quote_in_a_name_are_another_training(root: Path, database: Any) -> None:
    server = connect(root)
    queries = [query(), query(params_hash="p2"), query(method="it's"), query(method='"odd" = 1')]
    ids = [parents.find_or_restore(root, server, "digits", each) for each in queries]
    assert len(set(ids)) == 4
    assert [parents.find_or_restore(root, server, "digits", each) for each in queries] == ids


def test_sync_counts_parents_that_wait_with_their_children(
    root: Path, train: Callable[..., Any], evaluate: Callable[..., Any], database: Any, monkeypatch: pytest.MonkeyPatch,
    free_port: int,
) -> None:  # fmt: skip
    """A child's journal may come first by name, and cannot be sent before its parent's."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port}")
    monkeypatch.setenv("SGLR_TRACKING_WAIT", "0")
    with train() as tracker:
        tracker.tags({"weights_md5": "w1"})
        tracker.metrics({"loss": 1.0}, step=1)
    with evaluate(stage="analyze", item="analyze@sglr-0") as tracker:
        tracker.metrics({"natural/ece": 0.25})
    # Senders that have not yet given up would go on to the database.
    until(lambda: all(thread.name != "sglr-tracking" for thread in threading.enumerate()))
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    first, _ = journal.folders(root)
    assert first.name.startswith("analyze")
    reports = []

    def sent() -> bool:
        reports.append(tracking.sync(root))
        return reports[-1].missing == 0

    until(sent)
    assert sum(report.sent for report in reports) == 6  # each has its seconds and its memory, too
    assert sorted(item for report in reports for item in report.items) == ["analyze@sglr-0", "train@sglr-0"]
    assert len(database.runs()) == 2
