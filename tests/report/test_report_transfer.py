"""What the audit found, in the report."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sglr import files, report
from sglr.report.flags import raised
from sglr.report.results import collect
from sglr.report.study import read


def test_transfer_is_averaged_over_seeds(written: Path):
    results = json.loads((written / "results.json").read_text())
    rows = {(row["checkpoint"], row["model"], row["images_of"]): row for row in results["transfer"]}
    assert len(rows) == 2 * 2 * 2
    assert rows["last", "at", "at"]["accuracy"] == {"mean": 0.5, "deviation": 0.0}
    other = rows["best", "sglr", "at"]["accuracy"]
    assert other["mean"] == pytest.approx(0.725)
    assert other["deviation"] == pytest.approx(0.05 / 2**0.5)
    shown = files.read_rows(written / "tables/transfer.csv")
    assert len(shown) == 8
    assert "Images made for another model" in (written / "index.html").read_text()
    assert "72.5 ± 3.5" in (written / "results.md").read_text()


@pytest.mark.usefixtures("undrawn")
def test_a_single_method_has_no_transfer(make: Callable, tmp_path: Path):
    study = make(methods=("at",))
    report.write(*study, tmp_path / "report")
    assert not (tmp_path / "report/tables/transfer.csv").exists()


@pytest.mark.usefixtures("undrawn")
def test_flags_of_the_audit_stand_with_those_of_the_item(make: Callable, tmp_path: Path):
    config, artifacts = make()
    flag = "last: 3 of 200 worst-case images are scored otherwise in a new process"
    files.write_json(artifacts / "audit/metrics.json", {"items": {}, "flags": [f"sglr-1/{flag}"]})
    report.write(config, artifacts, tmp_path / "report")
    results = json.loads((tmp_path / "report/results.json").read_text())
    assert results["flags"] == [{"method": "sglr", "seed": 1, "flag": flag}]
    assert f"sglr-1/{flag}" in (tmp_path / "report/index.html").read_text()


def test_what_many_models_raise_is_said_once():
    few = "autoattack: 3 targets instead of 9"
    rows = [{"method": "at", "seed": seed, "flag": f"{name}/{few}"} for seed in (0, 1) for name in ("best", "last")]
    rows.insert(1, {"method": "sglr", "seed": 0, "flag": "the first 50 test examples are not representative"})
    rows.append({"method": "sglr", "seed": 1, "flag": "last: square: breaks more"})
    assert raised(rows) == [
        f"4 models (at-0/best, at-0/last, at-1/best ...): {few}",
        "sglr-0: the first 50 test examples are not representative",
        "sglr-1/last: square: breaks more",
    ]


def test_it_says_on_how_many_examples_every_seed_was_looked_at(make) -> None:
    settings, artifacts = make()
    path = artifacts / "audit/transfer.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["examples"] = "150" if row["seed"] == "1" else "200"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    assert {row["examples"] for row in collect(read(settings, artifacts))["transfer"]} == {150}
