"""How far running items are, by their journals."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from sglr.project import running


def journal(root: Path, item: str, values: dict[str, Any], epochs: dict[int, int]) -> None:
    """Journal of an item with params ``values`` that logged epochs (keys) at moments (values: ms since 1970)."""
    folder = root / f".sglr/journal/{item}-x"
    folder.mkdir(parents=True)
    records = [{"t": 0, "kind": "params", "values": values}] + [
        {"t": moment, "kind": "metrics", "step": epoch, "values": {"train/loss": 1.0}}
        for epoch, moment in epochs.items()
    ]
    (folder / "journal.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records))


def test_time_left_is_that_of_the_epochs_trained_here(tmp_path):
    """Not of those that an adversarial warm-up handed over, nor of a pause before the run was resumed."""
    values = {"train.epochs": "40", "warmup.objective": "adversarial", "warmup.epochs": "3"}
    begun = int(1000 * time.time()) - 5_000_000
    moments = [0, 1, 2, 60_000, 120_000, 180_000, 4_880_000, 4_940_000, 5_000_000]
    journal(tmp_path, "train@at-0", values, {epoch: begun + moment for epoch, moment in enumerate(moments, 1)})
    found = running.progress(tmp_path, "train@at-0", None)
    assert (found.epoch, found.epochs) == (9, 40)
    assert found.seconds_left == pytest.approx(31 * 60, abs=10)


@pytest.mark.parametrize(("objective", "epochs"), [("standard", (-4, -3)), ("adversarial", (1, 2))])
def test_how_far_a_warm_up_is(tmp_path, objective, epochs):
    """A natural one's epochs end at 0: of five they are -4 to 0."""
    moments = (int(1000 * time.time()) - 1000, int(1000 * time.time()))
    values = {"warmup.epochs": "5", "warmup.objective": objective}
    journal(tmp_path, "warmup@0", values, dict(zip(epochs, moments, strict=True)))
    found = running.progress(tmp_path, "warmup@0", None)
    assert (found.epoch, found.epochs) == (2, 5)
    assert found.seconds_left == pytest.approx(3, abs=2.5)


def test_what_stands_before_a_damaged_line_counts(tmp_path):
    journal(tmp_path, "train@at-0", {"train.epochs": "40"}, {1: 1_000, 2: 61_000})
    path = tmp_path / ".sglr/journal/train@at-0-x/journal.jsonl"
    path.write_text(path.read_text() + '{"t": 121000, "ki')
    found = running.progress(tmp_path, "train@at-0", None)
    assert (found.epoch, found.epochs, found.seconds_left) == (2, 40, 0.0)


def test_how_far_a_running_item_is_in_words():
    assert str(running.Progress(seconds=12.4)) == "for 12 s"
    assert (
        str(running.Progress(seconds=400, epoch=3, epochs=60, seconds_left=570)) == "epoch 3 of 60, about 10 min left"
    )
    assert str(running.Progress(epoch=1, epochs=60)) == "epoch 1 of 60"
