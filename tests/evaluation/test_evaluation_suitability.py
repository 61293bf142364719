"""Attacks and classes, and whether the first test examples stand for all."""

import contextlib

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from sglr.attacks import square
from sglr.attacks.autoattack import square_misfit
from sglr.config import ConfigError
from sglr.config.reader import validate
from sglr.evaluation.suitability import require_attackable, skewed
from sglr.threat import build

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
    require_attackable(config, fewest, (1, 8, 8))
    if fewest > 2:
        with pytest.raises(ConfigError, match=f"attacks.tried cannot be run .* at least {fewest} classes, there are"):
            require_attackable(config, fewest - 1, (1, 8, 8))


@pytest.mark.parametrize(
    ("attack", "sanity", "key"),
    [("autoattack", None, "attacks.tried"), ("square", None, "attacks.tried"), ("fgsm", {"steps": 20}, "sanity")],
)
def test_square_attack_under_l2_is_refused_for_pictures_that_are_not_square(params, attack, sanity, key):
    params["evaluate"]["attacks"] = {"tried": attack}
    params["evaluate"]["sanity"] = sanity and {**sanity, "n_examples": 8}
    params["threat"]["norm"] = "l2"
    config = validate(params)
    require_attackable(config, 10, (3, 8, 8))
    with pytest.raises(ConfigError, match=f"evaluate.{key} cannot be run on this data: pyauto.* under L2 .* 6x10"):
        require_attackable(config, 10, (3, 6, 10))
    params["threat"]["norm"] = "linf"
    require_attackable(validate(params), 10, (3, 6, 10))


@pytest.mark.parametrize("side", range(3, 41))
def test_square_attack_takes_the_sizes_that_it_is_said_to_take(side):
    """As the package is: where it takes more, the refusal may go."""
    x = torch.rand(2, 1, side, side, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([0, 0])

    class Sure(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.stack([x.flatten(1).sum(1) * 0 + 9, x.flatten(1).sum(1) * 1e-3], 1)

    for norm in ("linf", "l2"):
        refused = square_misfit((1, side, side), norm) is not None
        with pytest.raises((RuntimeError, ZeroDivisionError)) if refused else contextlib.nullcontext():
            square(Sure(), x, y, threat=build(norm, 1e-3), seed=0, queries=5)
