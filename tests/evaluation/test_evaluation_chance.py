"""Whether a model is better than always answering the most frequent class."""

import numpy as np
import pytest
import torch
from evaluation_study import CPU, Output, make
from scipy.stats import binom

import sglr
from sglr import evaluation
from sglr.evaluation.chance import at_chance

BALANCED = torch.arange(10_000) % 10


def outcomes(right: int, n: int) -> np.ndarray:
    return np.arange(n) < right


def test_the_usual_causes_are_flagged_on_balanced_classes():
    """A collapsed network is right exactly as often as the class is there; random ones about as often; one whose
    classes are numbered otherwise less often."""
    generator = np.random.default_rng(0)
    guesses = (generator.integers(0, 10, 10_000) == BALANCED.numpy() for _ in range(3))
    for correct in (BALANCED.numpy() == 3, BALANCED.numpy() == 10, *guesses):
        (flag,) = at_chance(correct, BALANCED)
        assert f"natural accuracy, {correct.mean():.1%} of 10,000 test examples, is not above the 10.0%" in flag
        assert "every other number of this model is meaningless" in flag
    assert at_chance(outcomes(1200, 10_000), BALANCED) == []


def test_the_share_is_that_of_the_evaluated_labels():
    """Of an unbalanced set the largest class counts: 85% right is nothing where 90% are of one class."""
    labels = torch.cat([torch.zeros(900, dtype=torch.long), torch.ones(100, dtype=torch.long)])
    (flag,) = at_chance(outcomes(850, 1000), labels)
    assert "85.0% of 1,000 test examples, is not above the 90.0% of always answering" in flag
    assert at_chance(outcomes(850, 1000), torch.arange(1000) % 2) == []
    assert at_chance(outcomes(850, 1000), torch.zeros(1000, dtype=torch.long)) == [], "one class alone says nothing"


@pytest.mark.parametrize("n", [1, 2, 5, 10, 20, 50, 200])
@pytest.mark.parametrize("classes", [2, 10, 100])
def test_few_examples_do_not_raise_false_alarms(n, classes):
    """Worked out exactly, not drawn: with twice the odds of the largest class, or 80% right, whichever is more."""
    labels = torch.arange(n) % classes
    share = int(labels.bincount().max()) / n
    flagged = np.array([bool(at_chance(outcomes(right, n), labels)) for right in range(n + 1)])
    odds = 2 * share / (1 + share)
    for accuracy in (odds, max(0.8, odds)):
        assert binom.pmf(np.arange(n + 1), n, accuracy)[flagged].sum() <= 0.02


@pytest.mark.parametrize(("classes", "enough"), [(2, 54), (10, 150), (100, 1400)])
def test_how_many_examples_a_verdict_on_chance_takes(classes, enough):
    """The numbers docs/evaluation.md gives."""
    for n, flags in ((enough - classes, 0), (enough, 1)):
        assert len(at_chance(outcomes(n // classes, n), torch.arange(n) % classes)) == flags


def test_it_reaches_the_metrics_of_every_checkpoint(params, tmp_path):
    """Untrained networks are at chance."""
    config, prepared, trained = make(params, tmp_path, attacks={"fgsm": "fgsm"})
    flags = evaluation.evaluate(config, prepared, trained, device=CPU).metrics()["flags"]
    assert [flag.partition(",")[0] for flag in flags] == ["best: natural accuracy", "last: natural accuracy"]


def test_labels_that_are_numbered_otherwise_are_flagged_from_python():
    model, x = Output(classes=3), torch.rand(200, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    y, asked = model(x).argmax(1), {"attacks": "fgsm", "changes": {"evaluate.sanity": None, "evaluate.sweep": None}}
    threat = sglr.threat.Linf(1 / 255)
    assert sglr.robustness(model, x, y, threat=threat, **asked).flags == []
    (flag,) = sglr.robustness(model, x, (y + 1) % 3, threat=threat, **asked).flags
    assert flag.startswith("last: natural accuracy, 0.0% of 200 test examples, is not above the ")
