"""Whether the first test examples stand for all."""

import numpy as np
import pytest
import torch
from evaluation_study import make
from scipy.stats import chisquare

from sglr.config import ConfigError
from sglr.data import Split
from sglr.evaluation import evaluate
from sglr.evaluation.skew import _cells, skewed

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
    pieces = tmp_path / "pieces"
    attacks = {"fgsm": "fgsm", "apgd": {"name": "apgd", "loss": "dlr"}}
    config, *_ = make(params, tmp_path / "other", attacks=attacks)
    with pytest.raises(ConfigError, match=r"attacks\.apgd cannot be run on this data: .* 3 classes.*; leave it"):
        evaluate(config, Sorted(), trained, device=CPU, pieces=pieces)  # type: ignore[arg-type]
    assert not pieces.exists()


def test_every_class_is_in_some_cell():
    assert _cells([1.0, 1.0, 1.0, 2.0], [0, 1, 2, 5]) == [[5.0, 8.0]]
    assert _cells([1.0, 1.0], [0, 2]) == [[2.0, 2.0]]
