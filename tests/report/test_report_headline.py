"""The headline says what the numbers say, and no more."""

import json
import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sglr import config
from sglr.report import headline
from sglr.report.headline import headline_attacks
from sglr.report.interval_figures import draw_gaps
from sglr.report.results import collect
from sglr.report.sections import sections
from sglr.report.study import read
from sglr.report.tables import tables

Make = Callable[..., tuple[config.Config, Path]]
FALLING = {"best": (140, 150), "last": (100, 110)}
EXAMPLES = {"natural": 200, "fgsm": 200, "pgd20": 200, "autoattack": 200}


def results_of(made: tuple[config.Config, Path]) -> dict[str, Any]:
    return collect(read(*made))


@pytest.mark.parametrize(
    ("baseline", "method", "verdict"),
    [
        (FALLING, {"best": (142, 148), "last": (140, 150)}, "narrows"),
        (FALLING, {"best": (140, 150), "last": (124, 134)}, "narrows"),
        (FALLING, {"best": (142, 148), "last": (103, 107)}, "unchanged"),
        (FALLING, {"best": (140, 150), "last": (60, 70)}, "widens"),
        ({"best": (140, 150), "last": (141, 149)}, {"best": (140, 150), "last": (100, 110)}, "no_gap"),
    ],
)
def test_verdict(make: Make, baseline: dict[str, Any], method: dict[str, Any], verdict: str) -> None:
    headline = results_of(make(correct={"at": baseline, "sglr": method}))["headline"]
    assert [(row["method"], row["verdict"]) for row in headline["verdicts"]] == [("sglr", verdict)]


def test_sentences_carry_the_numbers(make: Make) -> None:
    results = results_of(make())
    verdict, text = results["headline"]["verdicts"][0], " ".join(results["headline"]["details"])
    claim = "‘sglr’ narrows the robust overfitting gap of ‘at’ under pgd20: from 20.0 to 0.0 points, 20.0 less ["
    assert verdict["sentence"].startswith(claim)
    assert re.search(
        r" The remaining gap, 0\.0 \[−\d+\.\d, \d+\.\d\], is not significantly different from 0\.$", verdict["sentence"]
    )
    assert "‘sglr’ is 20.0 points above ‘at’ [" in verdict["accuracy"]
    same = "it is not significantly different from that (0.0 points [no example differs])"
    assert f"which takes no further training, {same}" in verdict["accuracy"]
    assert "Under autoattack (20 test examples), ‘sglr’" in text
    assert "2 seeds × 200 test examples" in text


def test_what_is_left_of_a_gap_is_told_from_none(make: Make) -> None:
    made = make(correct={"at": FALLING, "sglr": {"best": (140, 150), "last": (124, 134)}})
    sentence = results_of(made)["headline"]["verdicts"][0]["sentence"]
    assert re.search(r" The remaining gap, 8\.0 \[\d+\.\d, \d+\.\d\], is significantly different from 0\.$", sentence)


def test_where_the_last_epoch_is_above_the_best_no_gap_is_left(make: Make) -> None:
    rising = {"best": (100, 110), "last": (141, 151)}
    sentence = results_of(make(correct={"at": FALLING, "sglr": rising}))["headline"]["verdicts"][0]["sentence"]
    said = r" No gap is left: its last epoch is 20\.5 points above its best \[\d+\.\d, \d+\.\d\]\.$"
    assert re.search(said, sentence)
    (alone, *_) = results_of(make(methods=("at",), correct={"at": rising}))["headline"]["details"]
    assert re.search(r", 20\.5 points \[\d+\.\d, \d+\.\d\] above its best epoch: no robust overfitting gap\. ", alone)


def test_a_gap_narrowed_from_below_is_said_to_be(make: Make) -> None:
    """Natural training has no gap since it has no robustness; its verdict must not sound like an improvement."""

    def standard(values: dict[str, Any]) -> None:
        values["methods"]["standard"] = {"objective": "standard", "labels": "hard", "weights": "none"}

    made = make(
        ("at", "standard"), correct={"at": FALLING, "standard": {"best": (0, 0), "last": (0, 0)}}, change=standard
    )
    results = results_of(made)
    sentence = results["headline"]["verdicts"][0]["sentence"]
    assert re.search(r"\], but its best epoch is 72\.5 points below that of ‘at’ \[\d+\.\d, \d+\.\d\]\. The", sentence)
    assert sentence.endswith(" The remaining gap, 0.0 [no example differs], is not significantly different from 0.")
    assert any("PGD-10 (‘standard’: by natural accuracy), never" in caution for caution in results["cautions"])


def test_a_best_epoch_that_is_not_told_apart_is_not_in_the_verdict(make: Make) -> None:
    assert "its best epoch" not in results_of(make())["headline"]["verdicts"][0]["sentence"]


@pytest.mark.parametrize(("last", "said"), [((141, 147), "does not change significantly"), ((60, 70), "changes")])
def test_without_a_gap_a_change_is_claimed_only_where_there_is_one(
    make: Make, last: tuple[int, int], said: str
) -> None:
    steady = {"best": (140, 150), "last": (139, 151)}
    made = make(correct={"at": steady, "sglr": {"best": (140, 150), "last": last}})
    verdict = results_of(made)["headline"]["verdicts"][0]
    assert verdict["verdict"] == "no_gap"
    assert (
        f"shows no significant robust overfitting gap under pgd20; with ‘sglr’ it {said}: from " in verdict["sentence"]
    )


def test_where_no_example_differs_no_interval_pretends_to_know(make: Make) -> None:
    same = {"best": (140, 140), "last": (140, 140)}
    made = make(seeds=(0,), correct={"at": same, "sglr": same})
    results = results_of(made)
    said = " ".join([*results["headline"]["details"], *results["headline"]["verdicts"][0].values()])
    assert "0.0 less [no example differs]" in said
    assert "[0.0, 0.0]" not in said
    shown = tables(results)
    for name in ("comparison", "differences"):
        cells = [cell for row in shown[name].rows for cell in row]
        assert any("[no example differs]" in cell for cell in cells)
        assert not any("[0.0, 0.0]" in cell for cell in cells)


def test_where_every_example_differs_no_interval_pretends_to_know(make: Make) -> None:
    correct = {"at": {"best": (200, 200), "last": (0, 0)}, "sglr": {"best": (200, 200), "last": (200, 200)}}
    verdict = results_of(make(seeds=(0,), correct=correct))["headline"]["verdicts"][0]
    assert "100.0 less [every example differs]" in verdict["sentence"]
    assert "100.0 points above ‘at’ [every example differs]" in verdict["accuracy"]
    correct = {"at": correct["sglr"], "sglr": correct["at"]}
    verdict = results_of(make(seeds=(0,), correct=correct))["headline"]["verdicts"][0]
    assert "100.0 points below ‘at’ [every example differs]" in verdict["accuracy"]


def test_worse_is_called_worse(make: Make) -> None:
    made = make(correct={"at": FALLING, "sglr": {"best": (70, 80), "last": (60, 70)}})
    verdict = results_of(made)["headline"]["verdicts"][0]
    # Last against last: 60 and 70 against 100 and 110 of 200.
    assert "‘sglr’ is 20.0 points below ‘at’ [" in verdict["accuracy"]


def test_strongest_attack_on_all_examples_leads(make: Make) -> None:
    assert results_of(make())["headline"]["attack"] == "pgd20"
    assert results_of(make(examples=EXAMPLES))["headline"]["attack"] == "autoattack"


def test_without_validation_there_is_no_gap(make: Make) -> None:
    results = results_of(make(best=False))
    verdict = results["headline"]["verdicts"][0]
    assert verdict["verdict"] == "no_best"
    assert verdict["sentence"].startswith("Under pgd20, ‘sglr’ ends 20.0 points above ‘at’ [")
    assert "no best epoch and no gap" in results["headline"]["details"][-1]
    assert {row["quantity"] for row in results["comparisons"]} == {"last_gain"}


def test_what_is_not_there_is_not_explained(make: Make) -> None:
    """Without a validation split neither the baseline stopped early nor a temperature; with one, both."""

    def said(best: bool, measured: dict[str, float]) -> tuple[str, str]:
        config, artifacts = make(best=best, seeds=(0,))
        for metrics in artifacts.glob("analyze/*/metrics.json"):
            metrics.write_text(json.dumps(json.loads(metrics.read_text()) | {"last": measured}))
        results = results_of((config, artifacts))
        shown = tables(results)
        (gap,) = (part for part in sections(results, shown, defaultdict(list)) if part.id == "gap")
        return " ".join(gap.text), shown["calibration"].caption

    text, caption = said(best=False, measured={"natural/ece": 0.2})
    assert "best" not in text
    assert "temperature" not in caption
    text, caption = said(best=True, measured={"natural/ece": 0.2, "natural/ece_scaled": 0.1})
    assert "“last − best of ‘at’” is that control" in text
    assert "one temperature fitted on natural validation images (scaled;" in caption


def test_one_seed_says_what_its_interval_counts(make: Make) -> None:
    results = results_of(make(seeds=(1,)))
    assert "count test examples only" in results["headline"]["details"][-1]
    assert results["accuracy"][0]["last"]["deviation"] is None
    assert results["cautions"][0].startswith("One seed")
    assert tables(results)["differences"].caption.endswith("with 95% intervals over test examples.")


def test_one_method_has_nothing_to_compare_with(make: Make) -> None:
    headline = results_of(make(methods=("at",)))["headline"]
    assert headline["verdicts"] == []
    assert headline["details"][0].startswith("‘at’ ends with 52.5% robust accuracy under pgd20, 20.0 points [")
    other = results_of(make(methods=("sglr",)))["headline"]
    assert "baseline ‘at’ is not among the methods listed" in other["details"][0]
    # A gap that is not told from 0 is not claimed, in neither direction.
    told = r", not significantly different from its best epoch: the robust overfitting gap is 0\.0 points \[−\d+\.\d, "
    assert re.search(told, other["details"][0])
    for last in ((139, 150), (141, 150)):
        (said, *_) = results_of(make(("at",), correct={"at": {"best": (140, 150), "last": last}}))["headline"][
            "details"
        ]
        assert "not significantly different from its best epoch" in said


def test_without_attacks_nothing_is_said_of_robustness(make: Make) -> None:
    def without(values: dict[str, Any]) -> None:
        values["evaluate"]["attacks"] = {}

    made = make(change=without)
    results = results_of(made)
    assert draw_gaps(read(*made), results)[0].title == "Overfitting gap: best − last"
    assert "the overfitting gap of ‘at’ without an attack" in results["headline"]["verdicts"][0]["sentence"]
    (alone, *_) = results_of(make(("at",), change=without))["headline"]["details"]
    assert alone.split(". ")[0].endswith("below its best epoch: the overfitting gap")
    titles = [part.title for part in sections(results, tables(results), defaultdict(list))]
    assert not [title for title in titles if "robust" in title.lower()]
    assert any("No attack was run" in caution for caution in results["cautions"])


@pytest.mark.parametrize(
    ("augment", "cautioned"),
    [
        ({"crop_padding": 0, "flip": False}, True),
        ({"crop_padding": 0, "flip": True}, False),
        ({"crop_padding": 0, "flip": False, "more": [{"name": "cutout", "size": 4}]}, False),
    ],
)
def test_a_study_without_augmentation_is_cautioned(make: Make, augment: dict[str, Any], cautioned: bool) -> None:
    def change(values: dict[str, Any]) -> None:
        values["data"]["augment"] = augment

    said = " ".join(results_of(make(change=change))["cautions"])
    assert ("There is no data augmentation" in said) == cautioned


def test_cautions_follow_from_the_facts(make: Make) -> None:
    said = " ".join(results_of(make())["cautions"])
    for fact in ("Only 2 seeds", "autoattack was run on 20 of the 200", "‘sglr’ refines 16.7%", "8x8"):
        assert fact in said

    def milder(values: dict[str, Any]) -> None:
        values["data"]["noise"] = {"kind": "none", "rate": 0.0, "seed": 0}
        values["data"]["augment"] = {"crop_padding": 1, "flip": False}
        values["methods"]["sglr"]["labels"] |= {"refinement_ratio": 0.7, "natural_bn": "eval"}

    said = " ".join(results_of(make(examples=EXAMPLES, change=milder))["cautions"])
    assert "label noise was injected" not in said
    assert "augmentation" not in said
    assert "autoattack was run on" not in said
    assert "train mode" not in said
    assert "ratio 0.7: a reconstruction" in said

    def rising(values: dict[str, Any]) -> None:
        values["methods"]["sglr"]["labels"]["ratio_schedule"] = "linear"

    said = " ".join(results_of(make(change=rising))["cautions"])
    assert "‘sglr’ mixes refined and given labels with a ratio that rises to 1.0: a reconstruction" in said


@pytest.mark.parametrize(("fewer", "points", "over_best"), [(10, "5.0", "−15.0"), (30, "−5.0", "−25.0")])
def test_an_attack_under_which_less_of_an_advantage_is_left_is_named(
    fewer: int, points: str, over_best: str, make: Make
) -> None:
    """One that breaks more of the method; on fewer examples, as AutoAttack here, it could be chance. Nothing is said of
    the best epochs, which both attacks find as far apart."""
    settings, artifacts = make()
    for seed in (0, 1):
        folder = artifacts / f"evaluate/sglr-{seed}"
        with np.load(folder / "outcomes.npz") as stored:
            arrays = dict(stored)
        broken = arrays["last/pgd20"].copy()
        broken[np.flatnonzero(broken)[:fewer]] = False
        arrays |= {"last/fgsm": broken, "last/autoattack": np.zeros(20, dtype=bool)}
        np.savez(folder / "outcomes.npz", **arrays)
        metrics = json.loads((folder / "metrics.json").read_text())
        metrics["last"] |= {attack: float(arrays[f"last/{attack}"].mean()) for attack in ("fgsm", "autoattack")}
        (folder / "metrics.json").write_text(json.dumps(metrics))
    (said,) = (one for one in results_of((settings, artifacts))["cautions"] if "overstates" in one)
    assert said == (
        f"pgd20 overstates ‘sglr’: gap of ‘at’ − gap is {points} points under fgsm, not 20.0; last − last of ‘at’ is"
        f" {points} points under fgsm, not 20.0; last − best of ‘at’ is {over_best} points under fgsm, not 0.0."
    )
    assert not any("overstates" in one for one in results_of(make())["cautions"])


def test_a_best_epoch_that_is_the_last_leaves_no_gap_to_speak_of(make: Make) -> None:
    config, artifacts = make()
    late = artifacts / "train/sglr-1/metrics.json"
    late.write_text(json.dumps(json.loads(late.read_text()) | {"best_epoch": 6}))
    sentence = "The best epoch of ‘sglr’ is its last with 1 of 2 seeds: its gap there is 0 by construction."
    assert sentence in results_of((config, artifacts))["cautions"]
    assert not any("is its last" in caution for caution in results_of(make())["cautions"])


@pytest.mark.parametrize(
    ("objective", "epochs", "said"), [("standard", 2, True), ("standard", 0, False), ("adversarial", 2, False)]
)
def test_methods_that_begin_from_other_weights_are_said(make: Make, objective: str, epochs: int, said: bool) -> None:
    def change(values: dict[str, Any]) -> None:
        values["warmup"] |= {"objective": objective, "epochs": epochs}
        values["methods"]["at"]["start"] = "initial"

    sentence = "‘at’ began from the initial weights, the others after 2 epochs of natural training, which no cost"
    assert any(sentence in caution for caution in results_of(make(change=change))["cautions"]) == said


def test_the_checks_say_on_how_many_examples_they_were_made(make: Make) -> None:
    def more_than_there_are(values: dict[str, Any]) -> None:
        values["evaluate"]["sanity"] = {"n_examples": 5000, "steps": 20}

    assert results_of(make(change=more_than_there_are))["checks"][-1].endswith(" on 200 test examples of every model.")


def test_injected_noise_is_said_with_the_labels_it_made_wrong(make: Make) -> None:
    """Of one class in ten; the labels of the made-up study, four of ten wrong, are not drawn from it."""

    def one_class(values: dict[str, Any]) -> None:
        values["data"]["noise"] = {"kind": "asymmetric", "rate": 0.9, "seed": 0, "map": {0: 1}}

    said = " ".join(results_of(make(change=one_class))["cautions"])
    noise = "90.0% asymmetric label noise was injected into the training labels, of which 40.0% are wrong: gains"
    assert noise in said


def test_a_best_epoch_before_refinement_is_cautioned_about(make: Make) -> None:
    """The third of six epochs is the best one, labels are refined from the fourth on."""
    sentence = "The best epoch of ‘sglr’ comes before its label policy acts (epoch 4) with 2 of 2 seeds"

    def earlier(values: dict[str, Any]) -> None:
        values["methods"]["sglr"]["labels"]["start_epoch"] = 3
        values["train"]["selection"]["every"] = 3

    assert any(sentence in caution for caution in results_of(make())["cautions"])
    said = results_of(make(change=earlier))["cautions"]
    assert not any("before its label policy acts" in caution for caution in said)
    assert any(caution.startswith("train.selection.every 3 measures 2 of 6 epochs") for caution in said)


def test_no_interval_reaches_beyond_what_shares_can_be(make: Make) -> None:
    """Two seeds that differ much: Student's t asks for more than there is."""
    correct = {"at": {"best": (195, 5), "last": (0, 0)}, "sglr": {"best": (0, 0), "last": (195, 5)}}
    found = results_of(make(correct=correct))
    ends = {row["quantity"]: (row["low"], row["high"]) for row in found["comparisons"] if row["attack"] == "pgd20"}
    assert all(-2 <= low <= high <= 2 for low, high in ends.values())
    assert ends["last_gain"] == (-1, 1)


def test_what_seeds_share_is_cautioned_about_only_where_it_is_so(make: Make) -> None:
    def shared(seeds: tuple[int, ...] = (0, 1), **data: Any) -> list[str]:
        made = make(seeds=seeds, change=lambda values: values["data"].update(data))
        return [caution for caution in results_of(made)["cautions"] if caution.startswith("All seeds share")]

    counted = ": the intervals do not count what another draw would change."
    assert shared() == [f"All seeds share the split into training and validation{counted}"]
    assert shared(noise_per_seed=False) == [
        f"All seeds share the split into training and validation and the label noise{counted}"
    ]
    assert shared(validation_size=0) == [f"All seeds share the choice of training examples{counted}"]
    assert shared(validation_size=0, train_size=None) == []
    assert shared(seeds=(0,)) == []


def test_best_epochs_by_wrong_labels_are_said_to_be(make: Make) -> None:
    found = results_of(make(change=lambda values: values["data"].update(noisy_validation=True)))
    assert any("chosen by validation labels that are as wrong as those of training" in one for one in found["cautions"])
    assert not any("Validation labels are clean" in caution for caution in found["cautions"])
    chosen = "chosen on 200 validation examples with labels as wrong as those of training, under PGD-10"
    assert found["outline"]["best epoch"] == chosen


def test_best_epochs_by_clean_labels_are_cautioned_about_under_noise(make: Make) -> None:
    def cautioned(best: bool = True, **data: Any) -> bool:
        made = make(best=best, change=lambda values: values["data"].update(data))
        return any("Validation labels are clean" in caution for caution in results_of(made)["cautions"])

    assert cautioned()
    assert not cautioned(noise={"kind": "none", "rate": 0.0, "seed": 0})
    assert not cautioned(best=False, validation_size=0)


def test_wrong_labels_of_the_data_itself_are_said(make: Make) -> None:
    config, artifacts = make(
        change=lambda values: values["data"].update(noise={"kind": "none", "rate": 0.0, "seed": 0})
    )
    meta = artifacts / "data" / "meta.json"
    found = json.loads(meta.read_text()) | {
        "noise": {"flipped": 30},
        "sizes": {"train": 120, "validation": 200, "test": 200},
    }
    meta.write_text(json.dumps(found))
    said = results_of((config, artifacts))["cautions"]
    assert any(caution.startswith("25.0% of the training labels are wrong, as the data gives them") for caution in said)
    assert any("training and validation and the wrong labels" in caution for caution in said)
    assert any("Validation labels are clean" in caution for caution in said)


def test_a_count_of_wrong_labels_that_no_run_has_is_not_shown(make: Make) -> None:
    for per_seed, shown in ((True, {"per_seed": True}), (False, {"per_seed": False, "flipped": 40})):
        settings, artifacts = make()
        meta = artifacts / "data" / "meta.json"
        noise = {"per_seed": per_seed, "flipped": 40}
        meta.write_text(json.dumps(json.loads(meta.read_text()) | {"noise": noise}))
        assert results_of((settings, artifacts))["data"]["noise"] == shown


def test_images_that_were_trained_on_are_said(make: Make) -> None:
    config, artifacts = make()
    meta = artifacts / "data" / "meta.json"
    sizes = {"train": 120, "validation": 40, "test": 200}
    found = json.loads(meta.read_text()) | {"sizes": sizes, "repeated": {"validation": 0, "test": 3}}
    meta.write_text(json.dumps(found))
    said = [caution for caution in results_of((config, artifacts))["cautions"] if "training images too" in caution]
    assert len(said) == 1
    assert said[0].startswith("3 of the 200 test images")


def test_natural_training_alone_is_chosen_by_natural_accuracy(make: Make) -> None:
    def standard(values: dict[str, Any]) -> None:
        values["methods"]["at"]["objective"] = "standard"

    said = " ".join(results_of(make(("at",), change=standard))["cautions"])
    assert "Best epochs were chosen on 200 validation examples by natural accuracy, never" in said


def test_batch_norm_is_cautioned_about_only_where_labels_feed_it(make: Make) -> None:
    """Methods whose labels forward natural images in train mode beside an objective that does not, on batch norm."""
    refined = {"name": "refinement", "start_epoch": 4}
    methods = {
        "at": ("at", "hard"),
        "sglr": ("at", refined),
        "eval": ("at", refined | {"natural_bn": "eval"}),
        "trades_sglr": ("trades", refined),
        "mart_sglr": ("mart", refined),
        "trades": ("trades", "hard"),
        "control": ("at", {"name": "hard", "natural_forward_from": 4}),
        "ensembling": ("at", {"name": "ensembling", "start_epoch": 4}),
        "sat": ("trades", {"name": "self_adaptive", "start_epoch": 4}),
    }

    def declare(values: dict[str, Any], batch_norm: bool = True) -> None:
        values["model"] |= {"batch_norm": batch_norm}
        values["methods"] = {
            name: {"objective": objective, "labels": labels, "weights": "none"}
            for name, (objective, labels) in methods.items()
        }

    def warned(change: Callable[[dict[str, Any]], None]) -> list[str]:
        made = make(tuple(methods), correct=dict.fromkeys(methods, FALLING), change=change)
        return [caution for caution in results_of(made)["cautions"] if "batch-norm statistics" in caution]

    (caution,) = warned(declare)
    assert caution.startswith("‘sglr’ forwards natural images in train mode, as the published code does, so they enter")
    assert warned(lambda values: declare(values, batch_norm=False)) == []


def test_a_gap_whose_interval_ends_at_zero_is_none(make: Make) -> None:
    """Two contrasts of one seed that are not 0, of one sign: nothing tells them from 0, and the interval ends there."""
    few = {"best": (102,), "last": (100,)}
    results = results_of(make(seeds=(0,), correct={"at": few, "sglr": few}))
    (gap,) = (row["gap"] for row in results["accuracy"] if (row["attack"], row["method"]) == ("pgd20", "at"))
    assert gap["low"] == 0 < gap["mean"]
    assert results["headline"]["verdicts"][0]["verdict"] == "no_gap"


@pytest.mark.parametrize(("shape", "said"), [([1, 8, 8], True), ([1, 28, 28], True), ([3, 32, 32], False)])
def test_images_as_small_as_digits_are_cautioned_about(make: Make, shape: list[int], said: bool) -> None:
    settings, artifacts = make()
    meta = json.loads((artifacts / "data/meta.json").read_text())
    (artifacts / "data/meta.json").write_text(json.dumps({**meta, "shape": shape}))
    found = results_of((settings, artifacts))["cautions"]
    assert any("pixels show the mechanism, not what happens" in text for text in found) == said


def test_where_no_method_is_warmed_up_no_other_is_spoken_of(make: Make) -> None:
    def change(values: dict[str, Any]) -> None:
        values["warmup"] |= {"objective": "standard", "epochs": 3}
        for method in ("at", "sglr"):
            values["methods"][method]["start"] = "initial"

    assert not [text for text in results_of(make(change=change))["cautions"] if "the others after" in text]


def test_an_attack_with_another_loss_stands_beside_the_headlines(make: Make) -> None:
    """Only where both ascend a loss, and on as many examples."""

    def margin(attacks: dict[str, Any]) -> None:
        attacks["fgsm"] = {"name": "pgd", "steps": 10, "loss": "cw"}

    settings, artifacts = make(change=lambda values: margin(values["evaluate"]["attacks"]))
    assert results_of((settings, artifacts))["headline"]["attack"] == "pgd20"
    assert headline_attacks(read(settings, artifacts)) == ["fgsm", "pgd20", "autoattack"]
    assert "Under fgsm (200 test examples), ‘sglr’" in " ".join(
        results_of((settings, artifacts))["headline"]["details"]
    )
    assert headline_attacks(read(*make())) == ["pgd20", "autoattack"]


def test_among_equals_most_gradients_lead(make: Make) -> None:
    def change(values: dict[str, Any]) -> None:
        attacks = values["evaluate"]["attacks"]
        values["evaluate"]["attacks"] = {name: attacks[name] for name in ("pgd20", "fgsm")}

    examples = {"natural": 200, "pgd20": 200, "fgsm": 200}
    assert results_of(make(examples=examples, change=change))["headline"]["attack"] == "pgd20"


def test_restarts_count_and_attacks_without_gradients_do_not_lead(make: Make) -> None:
    """Nor those that do not tell their passes, such as transfer from another model."""

    def change(values: dict[str, Any]) -> None:
        thrice = {"name": "pgd", "steps": 10, "restarts": 3}
        attacks = {"fgsm": thrice, "pgd20": {"name": "pgd", "steps": 20}, "autoattack": {"name": "square"}}
        values["evaluate"]["attacks"] = attacks

    examples = {"natural": 200, "fgsm": 200, "pgd20": 200, "autoattack": 200}
    assert results_of(make(examples=examples, change=change))["headline"]["attack"] == "fgsm"


def test_a_best_epoch_slightly_below_is_not_called_below(make: Make) -> None:
    correct = {"at": FALLING, "sglr": {"best": (139, 150), "last": (124, 134)}}
    results = results_of(make(correct=correct))
    (best,) = (row for row in results["comparisons"] if (row["attack"], row["quantity"]) == ("pgd20", "best_gain"))
    assert best["estimate"] < 0 <= best["high"]
    assert "its best epoch is" not in results["headline"]["verdicts"][0]["sentence"]


@pytest.mark.parametrize(
    ("estimate", "said"), [(0.02, "gap smaller by 2.0 [1.0, 4.0]"), (-0.02, "gap larger by 2.0 [0.0, 3.0], not sig")]
)
def test_a_gap_that_grows_under_a_further_attack_is_said_to_be_larger(estimate: float, said: str) -> None:
    row = {"attack": "cw", "method": "sglr", "quantity": "gap_reduction", "estimate": estimate}
    row |= {"low": 0.01, "high": 0.04} if estimate > 0 else {"low": -0.03, "high": 0.0}
    results = {"comparisons": [row], "accuracy": [{"attack": "cw", "method": "sglr", "examples": 20}]}
    assert said in headline._more(results, "cw", "sglr", "at")
