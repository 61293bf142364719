"""Figures of the analyses, from tables written by hand."""

import csv
import re

import pytest

from sglr.report.analysis_figures import draw_analyses
from sglr.report.drawing import GRID
from sglr.report.study import read

pytestmark = pytest.mark.usefixtures("without_pdf")


def table(path, *rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def quantities(path, by_checkpoint):
    rows = [
        {"checkpoint": name, "epoch": epoch, "quantity": "weights/information", "value": value}
        for name, (epoch, value) in by_checkpoint.items()
    ]
    table(path / "quantities.csv", *rows)


def drawn(study):
    return [image for images in draw_analyses(study).values() for image in images]


def test_without_tables_there_are_no_figures(make):
    assert drawn(read(*make())) == []


def test_a_quantity_over_checkpoints_is_the_mean_over_seeds_at_their_mean_epoch(make):
    config, folder = make()
    quantities(folder / "analyze/at-0", {"start": (0, 0.0), "4": (4, 7.0), "best": (2, 1.0), "last": (5, 4.0)})
    quantities(folder / "analyze/at-1", {"start": (0, 0.0), "best": (3, 9.0), "last": (5, 6.0)})
    (image,) = drawn(read(config, folder))
    assert image.name == "weights-information"
    expected = "‘at’: 0 nats at start (epoch 0), 5 nats at best (epoch 2.5), 5 nats at last (epoch 5)."
    assert image.description == expected, "a checkpoint that one seed lacks has no mean"
    assert image.svg.count("<svg") == 1


def test_a_quantity_of_every_epoch_is_described(make):
    config, folder = make()
    for seed, values in ((0, (-0.5, 1.0, 2.0)), (1, (-1.0, 2.0, 4.0))):
        rows = [{"epoch": epoch, "label_information": value} for epoch, value in enumerate(values)]
        table(folder / f"analyze/at-{seed}/memorization.csv", *rows)
    (image,) = drawn(read(config, folder))
    assert image.description == "‘at’ goes from −0.75 nats at epoch 0 to 3 at epoch 2."


def test_reliability_pools_the_seeds_by_their_counts(make):
    config, folder = make()
    row = {"checkpoint": "last", "epoch": 5, "input": "natural", "scaled": 0, "bin": 14}
    table(folder / "analyze/at-0/calibration.csv", row | {"count": 30, "confidence": 0.9, "accuracy": 0.5})
    table(folder / "analyze/at-1/calibration.csv", row | {"count": 10, "confidence": 0.9, "accuracy": 0.1})
    (image,) = drawn(read(config, folder))
    assert image.name == "reliability-natural"
    assert "mean confidence minus accuracy +0.50" in image.description  # 0.9 - (15 + 1) / 40
    # The diagonal is to be seen: only the grid is as pale as the grid.
    assert set(re.findall(rf"stroke: {GRID}; stroke-width: ([\d.]+)", image.svg)) == {"0.8"}
    other = row | {"bin": 2, "count": 360, "confidence": 0.2, "accuracy": 0.3}
    table(folder / "analyze/at-1/calibration.csv", row | {"count": 10, "confidence": 0.9, "accuracy": 0.1}, other)
    (image,) = drawn(read(config, folder))
    # Over examples, not bins: (40 (0.9 - 0.4) + 360 (0.2 - 0.3)) / 400.
    assert "mean confidence minus accuracy −0.04" in image.description


def test_reliability_of_refined_labels_is_drawn_beside(make):
    config, folder = make()
    row = {"checkpoint": "last", "epoch": 5, "scaled": 0, "bin": 14, "count": 30, "confidence": 0.9, "accuracy": 0.5}
    for seed in (0, 1):
        table(folder / f"analyze/at-{seed}/calibration.csv", row | {"input": "natural"}, row | {"input": "refined"})
    natural, refined = drawn(read(config, folder))
    assert (natural.name, refined.name) == ("reliability-natural", "reliability-refined")
    assert refined.title == "Reliability, refined labels, last epoch"


def test_analyses_that_were_left_out_are_not_drawn(make):
    config, folder = make()
    for name in ("landscape", "calibration", "memorization", "quantities"):
        for seed in (0, 1):
            table(folder / f"analyze/at-{seed}/{name}.csv", {"checkpoint": None, "epoch": None})
    assert drawn(read(config, folder)) == []


def test_the_landscape_says_middle_and_ends(make):
    config, folder = make()
    row = {"checkpoint": "last", "epoch": 5, "input": "adversarial"}
    table(
        folder / "analyze/sglr-0/landscape.csv",
        *(row | {"radius": radius, "loss": loss} for radius, loss in ((-1.0, 3.0), (1e-17, 1.0), (1.0, 2.5))),
    )
    (image,) = drawn(read(config, folder))
    assert "1 nats in the middle, 3 and 2.5 at the ends" in image.description
