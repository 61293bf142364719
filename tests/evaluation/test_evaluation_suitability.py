"""Attacks and classes, and whether the first test examples stand for all."""

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from sglr.config import ConfigError
from sglr.config.reader import validate
from sglr.evaluation.suitability import require_classes, skewed

SORTED = torch.arange(10).repeat_interleave(80)


def test_the_first_of_sorted_examples_are_no_fair_sample():
    (flag,) = skewed(SORTED, {"natural": 800, "pgd20": 800, "autoattack": 50, "few": 50})
    assert flag.startswith("autoattack, few: the first 50 test examples are no fair sample of the classes (one class")
    assert "makes up 100% of them" in flag
    assert len(skewed(SORTED, {"a": 100, "b": 300})) == 2


def test_the_first_of_shuffled_examples_are_one():
    for seed in range(200):
        labels = SORTED[torch.randperm(800, generator=torch.Generator().manual_seed(seed))]
        assert skewed(labels, {"whole": 800, "most": 400, "some": 50, "few": 5}) == []


@pytest.mark.parametrize("first", [[13, 1, 0], [12, 1, 0], [20, 2, 0], [12, 3, 3]])
def test_the_limit_is_that_of_the_chi_squared_test(first):
    """Class 3 has no example at all, and counts for nothing."""
    shares = np.array([0.25, 0.25, 0.5])
    n = sum(first)
    rest = (1000 * shares).astype(int) - first
    labels = np.repeat([0, 1, 4, 0, 1, 4], [*first, *rest])
    expected = chisquare(first, n * shares).pvalue < 1e-6
    assert bool(skewed(torch.from_numpy(labels), {"some": n})) == expected


@pytest.mark.parametrize(
    ("attack", "fewest"),
    [("autoattack", 4), ({"name": "pgd", "loss": "dlr"}, 3), ({"name": "apgd", "loss": "dlr"}, 3), ("fgsm", 2)],
)
def test_an_attack_that_is_not_defined_for_so_few_classes_is_refused(params, attack, fewest):
    params["evaluate"]["attacks"] = {"tried": attack}
    config = validate(params)
    require_classes(config, fewest)
    if fewest > 2:
        with pytest.raises(ConfigError, match=f"attacks.tried needs at least {fewest} classes, the data has"):
            require_classes(config, fewest - 1)
