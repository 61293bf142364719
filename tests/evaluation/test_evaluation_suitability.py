"""Attacks and classes, and whether the first test examples stand for all."""

import contextlib
import importlib.metadata

import numpy as np
import pytest
import torch
from evaluation_study import make
from scipy.stats import chisquare

from sglr.attacks import square
from sglr.attacks.autoattack import square_misfit
from sglr.config import ConfigError
from sglr.config.reader import validate
from sglr.data import Split
from sglr.evaluation import evaluate
from sglr.evaluation.suitability import _cells, require_attackable, skewed
from sglr.threat import build

CPU = torch.device("cpu")

SORTED = torch.arange(10).repeat_interleave(80)


def test_the_first_of_sorted_examples_are_no_fair_sample():
    (flag,) = skewed(SORTED, {"natural": 800, "pgd20": 800, "autoattack": 50, "few": 50})
    assert flag.startswith("autoattack, few: the first 50 test examples are not a representative sample of the classes")
    assert "makes up 100% of them" in flag
    assert len(skewed(SORTED, {"a": 100, "b": 300})) == 2


def test_the_first_of_shuffled_examples_are_one():
    for seed in range(200):
        labels = SORTED[torch.randperm(800, generator=torch.Generator().manual_seed(seed))]
        assert skewed(labels, {"whole": 800, "most": 400, "some": 50, "few": 5}) == []


@pytest.mark.parametrize("counts", [[2000, 2, 2, 2, 2], [500, 200, 50, 10, 2, 1, 1, 1], [990, 10], [999, 1]])
def test_rare_classes_are_no_reason(counts):
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    for seed in range(200):
        mixed = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]
        assert skewed(mixed, {"most": 400, "some": 50, "few": 5}) == []


@pytest.mark.parametrize("first", [[24, 0, 0], [18, 3, 3], [20, 2, 2], [19, 3, 2], [6, 6, 12]])
def test_the_limit_is_that_of_the_chi_squared_test(first):
    """Classes 2 and 3 have no example at all, and count for nothing."""
    shares = np.array([0.25, 0.25, 0.5])
    labels = np.repeat([0, 1, 4, 0, 1, 4], [*first, *((1000 * shares).astype(int) - first)])
    expected = chisquare(first, 24 * shares).pvalue < 1e-9
    assert bool(skewed(torch.from_numpy(labels), {"some": 24})) == expected


@pytest.mark.parametrize(
    ("attack", "fewest"),
    [
        ("autoattack", 4),
        ({"name": "autoattack", "version": "rand"}, 3),
        ({"name": "pgd", "loss": "dlr"}, 3),
        ({"name": "apgd", "loss": "dlr"}, 3),
        ("fgsm", 2),
    ],
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
def test_square_attack_under_l2_is_refused_for_images_that_it_cannot_tile(params, attack, sanity, key):
    params["evaluate"]["attacks"] = {"tried": attack}
    params["evaluate"]["sanity"] = sanity and {**sanity, "n_examples": 8}
    params["threat"]["norm"] = "l2"
    config = validate(params)
    require_attackable(config, 10, (3, 8, 8))
    with pytest.raises(ConfigError, match=f"evaluate.{key} cannot be run on this data: pyauto.* under L2 .* 12x12"):
        require_attackable(config, 10, (3, 12, 12))
    params["threat"]["norm"] = "linf"
    require_attackable(validate(params), 10, (3, 12, 12))


@pytest.mark.parametrize(
    ("attack", "sanity", "key", "instead"),
    [
        ("autoattack", None, "attacks.tried", "leave it out"), ("square", None, "attacks.tried", "leave it out"),
        ("fgsm", {"steps": 20, "n_examples": 8}, "sanity", "set it to null"),
    ],
)  # fmt: skip
def test_without_its_package_nothing_is_begun(params, monkeypatch, attack, sanity, key, instead):
    def missing(package):
        raise importlib.metadata.PackageNotFoundError(package)

    params["evaluate"] |= {"attacks": {"tried": attack}, "sanity": sanity}
    monkeypatch.setattr(importlib.metadata, "version", missing)
    message = f"evaluate.{key} needs the package pyautoattack: pip install pyautoattack, or {instead}"
    with pytest.raises(ConfigError, match=message):
        require_attackable(validate(params), 10, (1, 8, 8))


@pytest.mark.parametrize(
    ("height", "width"),
    [
        *((side, side) for side in range(3, 41)),
        (6, 10),
        (10, 6),
        (8, 9),
        (32, 16),
        (28, 14),
        (48, 64),
        (64, 48),
        (12, 20),
    ],
)
def test_square_attack_takes_the_sizes_that_it_is_said_to_take(height, width):
    """As the package is: where it takes more, the refusal may go."""
    x = torch.rand(2, 1, height, width, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([0, 0])

    class Sure(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.stack([x.flatten(1).sum(1) * 0 + 9, x.flatten(1).sum(1) * 1e-4], 1)

    for norm in ("linf", "l2"):
        refused = square_misfit((1, height, width), norm) is not None
        with pytest.raises((RuntimeError, ZeroDivisionError)) if refused else contextlib.nullcontext():
            square(Sure(), x, y, threat=build(norm, 1e-3), seed=0, queries=25)


def test_the_suite_refuses_before_it_attacks_and_flags_once(params, tmp_path):
    params["evaluate"]["batch_size"] = 5
    attacks = {"few": {"name": "pgd", "steps": 1, "n_examples": 20}}
    config, prepared, trained = make(params, tmp_path, attacks=attacks)
    assert not [
        flag for flag in evaluate(config, prepared, trained, device=CPU).flags if "representative sample" in flag
    ]
    order = prepared.test().true.argsort()

    class Sorted:
        num_classes, shape = prepared.num_classes, prepared.shape

        def test(self, device: torch.device = CPU) -> Split:
            test = prepared.test(device)
            return Split(test.x[order], test.given[order], test.true[order])

    result = evaluate(config, Sorted(), trained, device=CPU)  # type: ignore[arg-type]
    flags = [flag for flag in result.metrics()["flags"] if "representative sample" in flag]
    assert len(flags) == 1
    assert flags[0].startswith("few: the first 20 test examples")
    Sorted.num_classes = 2
    journal = tmp_path / "journal"
    attacks = {"fgsm": "fgsm", "apgd": {"name": "apgd", "loss": "dlr"}}
    config, *_ = make(params, tmp_path / "other", attacks=attacks)
    with pytest.raises(ConfigError, match=r"attacks\.apgd cannot be run on this data: .* 3 classes.*; leave it"):
        evaluate(config, Sorted(), trained, device=CPU, journal=journal)  # type: ignore[arg-type]
    assert not journal.exists()


def test_every_class_is_in_some_cell():
    assert _cells([1.0, 1.0, 1.0, 2.0], [0, 1, 2, 5]) == [[5.0, 8.0]]
    assert _cells([1.0, 1.0], [0, 2]) == [[2.0, 2.0]]
