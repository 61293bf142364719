import math

import numpy as np
import pytest
from scipy.stats import binomtest

from sglr.evaluation.statistics import mcnemar, mean_std, wilson


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (3, 10), (10, 10), (412, 800), (1, 1), (37, 50), (9999, 10000)])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_wilson_against_scipy(successes, n, confidence):
    expected = binomtest(successes, n).proportion_ci(confidence_level=confidence, method="wilson")
    assert wilson(successes, n, confidence) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_by_hand():
    # The ends are the proportions p0 whose score statistic |p - p0| / sqrt(p0 (1 - p0) / n) is z.
    low, high = wilson(30, 40)
    for end in (low, high):
        assert abs(0.75 - end) / math.sqrt(end * (1 - end) / 40) == pytest.approx(1.959963984540054, abs=1e-9)
    assert low < 0.75 < high


def test_wilson_ends_exactly_at_0_and_1():
    assert wilson(0, 7)[0] == 0
    assert wilson(7, 7)[1] == 1


@pytest.mark.parametrize("arguments", [(0, 0), (-1, 5), (6, 5), (1.5, 5), (1, 5.5), (1, 5, 1.0), (1, 5, 95)])
def test_wilson_refuses(arguments):
    with pytest.raises(ValueError, match="found"):
        wilson(*arguments)


def test_mean_and_sample_deviation():
    assert mean_std([1.0, 2.0, 3.0, 6.0]) == pytest.approx((3.0, math.sqrt(14 / 3)))
    assert mean_std([0.5]) == (0.5, None)
    with pytest.raises(ValueError, match="no values"):
        mean_std([])


@pytest.mark.parametrize(
    ("only_a", "only_b"), [(0, 0), (1, 0), (3, 3), (10, 2), (2, 10), (400, 500), (0, 1200), (20_000, 20_500)]
)
def test_mcnemar_is_the_two_sided_binomial_test(only_a, only_b):
    a = np.array([True] * only_a + [False] * only_b + [True, False])
    b = np.array([False] * only_a + [True] * only_b + [True, False])
    found = mcnemar(a, b)
    assert (found.only_a, found.only_b) == (only_a, only_b)
    total = only_a + only_b
    assert found.p == pytest.approx(binomtest(only_a, total).pvalue if total else 1.0, rel=1e-9)


@pytest.mark.parametrize("kind", [np.int32, np.int16, np.uint16])
def test_numbers_of_numpy_do_not_overflow(kind):
    assert wilson(kind(1), kind(30000)) == wilson(1, 30000)


@pytest.mark.parametrize("outcomes", [[0.1, 0.9], ["0", "1"], [3, 1], [float("nan"), 1.0]])
def test_what_is_no_outcome_is_refused(outcomes):
    with pytest.raises(ValueError, match="True where a model is right"):
        mcnemar(outcomes, [1, 0])
    assert mcnemar([1.0, 0.0], [True, True]) == mcnemar([True, False], [1, 1])


def test_mcnemar_by_hand():
    # 7 against 1: the chance of 0 or 1 of 8 is 9/256, twice that is the p.
    assert mcnemar([1] * 7 + [0], [0] * 7 + [1]).p == 18 / 256


@pytest.mark.parametrize(("a", "b"), [([], []), ([1, 0], [1]), ([[1]], [[0]])])
def test_mcnemar_refuses(a, b):
    with pytest.raises(ValueError, match="same examples"):
        mcnemar(a, b)


def test_the_ends_are_exact_where_none_or_all_count():
    for n in range(1, 500):
        assert wilson(0, n)[0] == 0
        assert wilson(n, n)[1] == 1
