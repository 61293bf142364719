"""Figures of the analyses, from tables written by hand."""

import csv

import pytest

from sglr.report.analysis_figures import draw_analyses
from sglr.report.study import read


def table(path, *rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def quantities(path, by_epoch):
    rows = [
        {"checkpoint": f"epoch-{epoch}", "epoch": epoch, "quantity": "weights/information", "value": value}
        for epoch, value in by_epoch.items()
    ]
    table(path / "quantities.csv", *rows)


@pytest.fixture
def analysed(make):
    """A made-up study whose two seeds of `at` have information in the weights; config and folder."""
    config, folder = make()
    quantities(folder / "analyze/at-0", {0: 0.0, 2: 1.0, 5: 4.0})
    quantities(folder / "analyze/at-1", {0: 0.0, 3: 9.0, 5: 6.0})
    return config, folder


def test_without_tables_there_are_no_figures(make):
    assert draw_analyses(read(*make())) == []


def test_a_quantity_over_epochs_is_described(analysed):
    (picture,) = draw_analyses(read(*analysed))
    assert picture.name == "weights-information"
    assert "goes from 0 nats at epoch 0 to 5 at epoch 5" in picture.description
    assert picture.svg.count("<svg") == 1


def test_reliability_pools_the_seeds_by_their_counts(make):
    config, folder = make()
    row = {"checkpoint": "last", "epoch": 5, "input": "natural", "scaled": 0, "bin": 14}
    table(folder / "analyze/at-0/calibration.csv", row | {"count": 30, "confidence": 0.9, "accuracy": 0.5})
    table(folder / "analyze/at-1/calibration.csv", row | {"count": 10, "confidence": 0.9, "accuracy": 0.1})
    (picture,) = draw_analyses(read(config, folder))
    assert picture.name == "reliability-natural"
    assert "mean confidence minus accuracy over the bins +0.50" in picture.description  # 0.9 - (15 + 1) / 40


def test_the_landscape_says_middle_and_ends(make):
    config, folder = make()
    row = {"checkpoint": "last", "epoch": 5, "input": "adversarial"}
    table(
        folder / "analyze/sglr-0/landscape.csv",
        *(row | {"radius": radius, "loss": loss} for radius, loss in ((-1.0, 3.0), (0.0, 1.0), (1.0, 2.5))),
    )
    (picture,) = draw_analyses(read(config, folder))
    assert "1 nats in the middle, 3 and 2.5 at the ends" in picture.description
