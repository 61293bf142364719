"""The numbers in the report, against means and gaps worked out by hand from the made-up outcomes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from sglr import config
from sglr.files import FileError
from sglr.report.curves import curve
from sglr.report.results import collect, headline_numbers
from sglr.report.study import read
from sglr.report.tables import tables

Make = Callable[..., tuple[config.Config, Path]]


def results_of(made: tuple[config.Config, Path]) -> dict[str, Any]:
    return collect(read(*made))


def one(rows: list[dict[str, Any]], **wanted: Any) -> dict[str, Any]:
    found = [row for row in rows if all(row[key] == value for key, value in wanted.items())]
    assert len(found) == 1
    return found[0]


def test_means_deviations_gaps_and_counts(make: Make) -> None:
    row = one(results_of(make())["accuracy"], attack="pgd20", method="at")
    # Best 140 and 150 of 200, last 100 and 110.
    assert row["best"]["mean"] == pytest.approx(0.725)
    assert row["best"]["deviation"] == pytest.approx(0.05 / 2**0.5)
    assert row["last"]["mean"] == pytest.approx(0.525)
    assert row["gap"]["mean"] == pytest.approx(0.2)
    assert row["gap"]["deviation"] == pytest.approx(0, abs=1e-12)
    assert row["gap"]["low"] < 0.2 < row["gap"]["high"]
    assert (row["seeds"], row["examples"]) == (2, 200)


def test_every_attack_and_method_in_order(make: Make) -> None:
    rows = results_of(make())["accuracy"]
    attacks = ("natural", "fgsm", "pgd20", "autoattack")
    assert [(row["attack"], row["method"]) for row in rows] == [(a, m) for a in attacks for m in ("at", "sglr")]
    assert one(rows, attack="autoattack", method="at")["examples"] == 20
    # 40 examples more than under pgd20 are right without an attack.
    assert one(rows, attack="natural", method="at")["last"]["mean"] == pytest.approx(0.725)


@pytest.mark.parametrize(
    ("quantity", "estimate"),
    [("gap_reduction", 0.2), ("last_gain", 0.2), ("last_over_best", 0.0), ("best_gain", 0.0)],
)
def test_differences_from_the_baseline(make: Make, quantity: str, estimate: float) -> None:
    row = one(results_of(make())["comparisons"], attack="pgd20", quantity=quantity)
    assert (row["method"], row["baseline"]) == ("sglr", "at")
    assert row["estimate"] == pytest.approx(estimate, abs=1e-12)
    assert row["low"] <= estimate + 1e-12
    assert row["high"] >= estimate - 1e-12
    assert (row["seeds"], row["examples"]) == (2, 200)


def test_validation_means_are_there_to_choose_by(make: Make) -> None:
    """at: 66% in epoch 3, its best, and 60% in epoch 6."""
    results = results_of(make())
    row = one(results["validation"], method="at", input="pgd")
    assert {name: (row[name]["mean"], row[name]["seeds"]) for name in ("best", "last")} == {
        "best": (pytest.approx(0.66), 2), "last": (pytest.approx(0.6), 2),
    }  # fmt: skip
    numbers = headline_numbers(results, ["pgd20"])
    assert numbers["at"]["validation"]["pgd"] == {"best": pytest.approx(0.66), "last": pytest.approx(0.6)}
    without = headline_numbers(results_of(make(best=False)), ["pgd20"])
    assert "validation" not in without["at"]


def test_difference_keeps_examples_paired(make: Make) -> None:
    """Equal outcomes leave no uncertainty in the difference, however uncertain each accuracy is."""
    same = {method: {"best": (100, 100), "last": (100, 100)} for method in ("at", "sglr")}
    row = one(results_of(make(correct=same))["comparisons"], attack="pgd20", quantity="last_gain")
    assert (row["low"], row["estimate"], row["high"]) == (0, 0, 0)


def test_labels_recovered_and_corrupted(make: Make) -> None:
    refined = one(results_of(make())["labels"], method="sglr")
    means = {key: refined[key]["mean"] for key in refined if key != "method"}
    assert means == pytest.approx(
        {
            "noisy": 4, "recovered": 3, "recovered_share": 3 / 4, "clean": 6, "corrupted": 1, "corrupted_share": 1 / 6,
            "wrong_before": 0.4, "wrong_after": 0.2,
        }
    )  # fmt: skip


def test_training_steps_are_shown_of_saved_weights_alone(make: Make) -> None:
    """Of an average, what steps measure is another network's."""
    plain = results_of(make())
    assert one(plain["memorisation"], method="sglr")["noisy/pgd_given"]["mean"] == pytest.approx(0.6)
    made = make(change=lambda values: values["methods"]["sglr"].update(weights={"name": "ema"}))
    study, found = read(*made), results_of(made)
    averaged, other = (one(found["memorisation"], method=method) for method in ("sglr", "at"))
    assert (averaged["noisy/pgd_given"]["seeds"], averaged["refined/entropy"]["seeds"]) == (0, 2)
    assert other["noisy/pgd_given"]["seeds"] == 2
    assert not curve(study, "sglr", "train/pgd")
    assert curve(study, "sglr", "val/pgd")
    assert curve(study, "at", "train/pgd")
    said = [text for text in found["cautions"] if text.startswith("Training accuracies under PGD are not shown for")]
    assert len(said) == 1
    assert "‘sglr’:" in said[0]
    assert said[0] not in plain["cautions"]


def test_analysis_scalars_intervals_and_notes(make: Make) -> None:
    results = results_of(make())
    row = one(results["analysis"], checkpoint="last", quantity="natural/information", method="at")
    assert row["mean"] == 1.5
    assert row["runs"] == [{"seed": seed, "value": 1.5, "low": 1.25, "high": 1.75} for seed in (0, 1)]
    ece = one(results["analysis"], checkpoint="best", quantity="natural/ece", method="at")
    assert (ece["mean"], ece["deviation"]) == (pytest.approx(0.3), pytest.approx(0.1 / 2**0.5))
    assert one(results["analysis"], checkpoint="run", method="sglr")["quantity"] == "refined/nll"
    assert results["notes"]["probe"] == "a lower bound"
    assert results["notes"]["bias (sglr-1)"] == "of seed 1"


def test_what_fewer_seeds_have_is_marked(make: Make) -> None:
    config, artifacts = make()
    lacking = artifacts / "analyze/at-1/metrics.json"
    known = json.loads(lacking.read_text())
    del known["last"]["natural/information"]
    lacking.write_text(json.dumps(known))
    shown = tables(collect(read(config, artifacts)))["analysis"]
    (row,) = (row for row in shown.rows if row[:2] == ("last", "natural/information"))
    assert row[2:] == ("1.50 (1 seed)", "1.50 ± 0.00")


def test_no_chance_at_all_is_written_as_less_than_what_a_number_can_hold(make: Make) -> None:
    results = results_of(make())
    results["paired"] = [results["paired"][0] | {"p": 0.0}]
    assert tables(results)["paired"].rows[0][-1] == "< 1e-300"


def test_only_listed_methods_and_seeds_count(make: Make) -> None:
    make()
    results = results_of(make(methods=("sglr",), seeds=(1,)))
    assert {(row["method"], row["seed"]) for row in results["items"]} == {("sglr", 1)}
    assert results["comparisons"] == []


@pytest.mark.parametrize(
    "missing",
    [
        "data/meta.json", "train/sglr-1/metrics.json", "train/sglr-1/history.csv", "train/sglr-1/labels.npz",
        "evaluate/sglr-1/metrics.json", "evaluate/sglr-1/outcomes.npz", "analyze/sglr-1/metrics.json",
        "analyze/sglr-1/notes.json",
    ],
)  # fmt: skip
def test_missing_item_is_named(make: Make, missing: str) -> None:
    study, artifacts = make()
    (artifacts / missing).unlink()
    with pytest.raises(FileError, match=missing):
        read(study, artifacts)


def test_damaged_outcomes_are_named(make: Make) -> None:
    study, artifacts = make()
    path = artifacts / "evaluate/at-0/outcomes.npz"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(FileError, match=r"evaluate/at-0/outcomes\.npz"):
        read(study, artifacts)


def test_attack_that_was_not_evaluated_is_named(make: Make) -> None:
    made = make(change=lambda values: values["evaluate"]["attacks"].update(pgd50={"name": "pgd", "steps": 50}))
    with pytest.raises(FileError, match="pgd50"):
        read(*made)


def test_methods_attacked_on_different_examples_are_not_compared(make: Make) -> None:
    study, artifacts = make()
    path = artifacts / "evaluate/sglr-1/outcomes.npz"
    with np.load(path) as stored:
        arrays = dict(stored)
    arrays["index/pgd20"] = arrays["index/pgd20"] + 1
    np.savez(path, **arrays)
    with pytest.raises(FileError, match=r"sglr-1 and at-1 .* pgd20 on different"):
        collect(read(study, artifacts))


def test_params_of_methods_not_listed_are_left_out(make: Make) -> None:
    params = results_of(make(methods=("at",)))["provenance"]["params"]
    assert list(params["methods"]) == ["at"]
    assert params["evaluate"]["attacks"]["pgd20"]["steps"] == 20
    assert json.loads(json.dumps(params, allow_nan=False)) == params


def test_models_are_compared_in_pairs(make):
    config, artifacts = make()
    found = [row for row in collect(read(config, artifacts))["paired"] if row["attack"] == "pgd20"]
    assert {(row["method"], row["seed"], row["checkpoint"]) for row in found} == {
        ("sglr", seed, checkpoint) for seed in (0, 1) for checkpoint in ("best", "last")
    }
    for row in found:
        own, base = (
            np.load(artifacts / f"evaluate/{method}-{row['seed']}/outcomes.npz")[f"{row['checkpoint']}/pgd20"]
            for method in ("sglr", "at")
        )
        assert (row["only_method"], row["only_baseline"]) == ((own & ~base).sum(), (base & ~own).sum())
        expected = stats.binomtest(int(row["only_method"]), row["only_method"] + row["only_baseline"]).pvalue
        assert row["p"] == pytest.approx(expected)


def test_a_wrong_label_turned_into_another_wrong_one_is_not_recovered(make: Make) -> None:
    settings, artifacts = make()
    for folder in artifacts.glob("train/sglr-*"):
        with np.load(folder / "labels.npz") as stored:
            arrays = dict(stored)
        arrays["p"] = np.eye(3, dtype=np.float32)[[2, 1, 2, 1, 2, 2, 0, 1, 2, 0]]  # of example 0: true 0, given 1
        np.savez(folder / "labels.npz", **arrays)
    found = one(results_of((settings, artifacts))["labels"], method="sglr")
    assert (found["recovered"]["mean"], found["wrong_after"]["mean"]) == (2, pytest.approx(0.3))


def test_without_wrong_labels_there_is_no_share_of_them(make: Make) -> None:
    settings, artifacts = make()
    for path in artifacts.glob("train/*/labels.npz"):
        with np.load(path) as stored:
            arrays = dict(stored)
        np.savez(path, **{**arrays, "given": arrays["true"], "p": np.eye(3, dtype=np.float32)[arrays["true"]]})
    row = one(results_of((settings, artifacts))["labels"], method="sglr")
    assert (row["noisy"]["mean"], row["recovered_share"]["mean"], row["corrupted_share"]["mean"]) == (0, None, 0)


def test_what_one_method_alone_has_is_in_the_table(make: Make) -> None:
    made = make(change=lambda values: values["methods"]["sglr"].update(weights={"name": "ema"}))
    table = tables(results_of(made))["memorisation"]
    column = [*table.columns].index("noisy, PGD against given")
    assert [row[column] == "–" for row in table.rows] == [False, True]


def test_results_without_an_audit_have_tables(make: Make) -> None:
    assert "transfer" not in tables({**results_of(make()), "transfer": []})


def test_seeds_may_have_examples_of_their_own(make: Make) -> None:
    """As many as they like: they are redrawn within each seed."""
    settings, artifacts = make()
    for path in artifacts.glob("evaluate/*-1/outcomes.npz"):
        with np.load(path) as stored:
            arrays = {name: value[:150] if name.endswith("pgd20") else value for name, value in stored.items()}
        np.savez(path, **arrays)
    row = one(results_of((settings, artifacts))["comparisons"], attack="pgd20", quantity="last_gain")
    assert row["examples"] == 150
