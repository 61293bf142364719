"""An attack on some of the examples stands beside the headline's attack on the same ones."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sglr import config
from sglr.report.results import collect
from sglr.report.study import read
from sglr.report.tables import tables

Make = Callable[..., tuple[config.Config, Path]]


def test_the_headline_attack_is_counted_on_the_few_examples_too(make: Make) -> None:
    made = make()
    for path in made[1].glob("evaluate/*/outcomes.npz"):
        arrays = dict(np.load(path))
        np.savez(path, **arrays | {"index/autoattack": np.arange(90, 110)})
    results = collect(read(*made))
    row = results["same_examples"][0]
    assert (row["attack"], row["reference"], row["method"], row["examples"]) == ("autoattack", "pgd20", "at", 20)
    # Under pgd20 the first 140 and 150 of 200 are right at the best epoch, the first 100 and 110 at the last.
    assert row["best"]["mean"] == 1
    assert row["last"]["mean"] == pytest.approx((10 + 20) / 40)
    assert row["gap"]["mean"] == pytest.approx((10 + 0) / 40)
    shown = [cells[:2] for cells in tables(results)["comparison"].rows]
    assert shown[4:] == [
        ("pgd20", "at"), ("pgd20", "sglr"), ("pgd20, same 20", "at"), ("pgd20, same 20", "sglr"), ("autoattack", "at"),
        ("autoattack", "sglr"),
    ]  # fmt: skip


def test_attacks_on_all_examples_need_no_other_row(make: Make) -> None:
    results = collect(read(*make(examples={"natural": 200, "fgsm": 200, "pgd20": 200, "autoattack": 200})))
    assert results["same_examples"] == []


def test_other_examples_are_not_called_the_same(make: Make) -> None:
    made = make()
    for path in made[1].glob("evaluate/*/outcomes.npz"):
        np.savez(path, **dict(np.load(path)) | {"index/autoattack": np.arange(190, 210)})
    assert collect(read(*made))["same_examples"] == []
