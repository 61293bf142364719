import math

import numpy as np
import pytest
from scipy.stats import binomtest

from sglr.evaluation.statistics import hierarchical_bootstrap, mcnemar, mean_std, wilson
from sglr.random import numpy_stream


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


@pytest.mark.parametrize("arguments", [(0, 0), (-1, 5), (6, 5), (1, 5, 1.0), (1, 5, 95)])
def test_wilson_refuses(arguments):
    with pytest.raises(ValueError, match="found"):
        wilson(*arguments)


def test_mean_and_sample_deviation():
    assert mean_std([1.0, 2.0, 3.0, 6.0]) == pytest.approx((3.0, math.sqrt(14 / 3)))
    assert mean_std([0.5]) == (0.5, None)
    with pytest.raises(ValueError, match="no values"):
        mean_std([])


def test_point_is_the_mean_over_seeds_of_means_over_examples():
    found = hierarchical_bootstrap([[1.0, 0.0], [0.0, 0.0, 0.0, -1.0]], shared_examples=False)
    assert found.point == pytest.approx((0.5 - 0.25) / 2)
    assert (found.seeds, found.examples) == (2, (2, 4))


def test_equal_contrasts_leave_no_interval():
    found = hierarchical_bootstrap([np.full(20, 0.25)] * 3)
    assert (found.point, found.low, found.high) == (0.25, 0.25, 0.25)


def test_one_seed_is_the_bootstrap_over_examples_and_says_so():
    contrast = numpy_stream(0, "contrast").integers(-1, 2, 400).astype(float)
    for shared in (True, False):
        found = hierarchical_bootstrap([contrast], resamples=4000, shared_examples=shared)
        half = 1.96 * contrast.std() / 20
        assert found.low == pytest.approx(contrast.mean() - half, abs=0.1 * half)
        assert found.high == pytest.approx(contrast.mean() + half, abs=0.1 * half)
        assert found.resampled == "examples"
        assert "one training seed" in found.caution


def test_few_seeds_are_cautioned_against_many_are_not():
    found = hierarchical_bootstrap([np.arange(5.0)] * 2)
    assert found.resampled == "seeds and examples"
    assert "2 training seeds" in found.caution
    assert hierarchical_bootstrap([np.arange(5.0)] * 10).caution == ""


def simulate(rng, seeds: int, examples: int, *, seed_std: float, example_std: float, shared_std: float) -> np.ndarray:
    """Contrasts (seeds, examples) of mean 0.2: effects of the seed, of the example with every seed, and of the pair."""
    effects = rng.normal(0, seed_std, (seeds, 1)) + rng.normal(0, shared_std, (1, examples))
    return 0.2 + effects + rng.normal(0, example_std, (seeds, examples))


def width_and_coverage(simulations: int, shared: bool, **components: float) -> tuple[float, float]:
    rng = numpy_stream(0, "coverage")
    inside, widths = 0, []
    for number in range(simulations):
        found = hierarchical_bootstrap(
            list(simulate(rng, 12, 40, **components)), resamples=400, seed=number, shared_examples=shared
        )
        inside += found.low <= 0.2 <= found.high
        widths.append(found.high - found.low)
    return float(np.mean(widths)), inside / simulations


@pytest.mark.parametrize("shared", [True, False])
def test_coverage_with_known_variance_components(shared):
    # Examples drawn anew for every seed: both forms are valid. 200 simulations: standard error 0.017.
    _, coverage = width_and_coverage(200, shared, seed_std=0.1, example_std=0.5, shared_std=0)
    assert 0.88 <= coverage <= 0.99


def test_coverage_when_seeds_share_their_examples():
    components = {"seed_std": 0.05, "example_std": 0.2, "shared_std": 0.5}
    _, coverage = width_and_coverage(200, True, **components)
    assert 0.88 <= coverage <= 0.99
    # Drawing examples anew within each seed averages their common effect away, and is wrong here.
    _, nested = width_and_coverage(200, False, **components)
    assert nested < 0.75


def test_width_is_that_of_the_variance_components():
    # Variance of a replicate: that between seeds' means, times (S - 1) / S, and that of examples within a seed, both
    # over S. 10% for the percentiles of 400 replicates and the normal approximation.
    width, _ = width_and_coverage(100, False, seed_std=0.1, example_std=0.5, shared_std=0)
    between = (0.1**2 + 0.5**2 / 40) * 11 / 12 / 12
    within = 0.5**2 / 40 / 12
    assert width == pytest.approx(2 * 1.96 * math.sqrt(between + within), rel=0.1)


@pytest.mark.parametrize("shared", [True, False])
def test_wider_than_examples_alone_when_seeds_differ(shared):
    contrasts = simulate(numpy_stream(0, "seeds"), 6, 500, seed_std=0.3, example_std=0.5, shared_std=0)
    both = hierarchical_bootstrap(list(contrasts), shared_examples=shared)
    alone = hierarchical_bootstrap([contrasts.mean(0)])
    assert both.high - both.low > 5 * (alone.high - alone.low)


def test_same_seed_same_interval_whatever_the_chunks(monkeypatch):
    contrasts = list(simulate(numpy_stream(0, "seeds"), 3, 40, seed_std=0.1, example_std=0.5, shared_std=0.1))
    for shared in (True, False):
        first = hierarchical_bootstrap(contrasts, seed=1, shared_examples=shared)
        assert first == hierarchical_bootstrap(contrasts, seed=1, shared_examples=shared)
        assert first.low != hierarchical_bootstrap(contrasts, seed=2, shared_examples=shared).low
        with monkeypatch.context() as patch:
            patch.setattr("sglr.evaluation.statistics._CELLS", 100)
            again = hierarchical_bootstrap(contrasts, seed=1, shared_examples=shared)
        assert (again.low, again.high) == pytest.approx((first.low, first.high), abs=1e-12)


@pytest.mark.parametrize(
    ("differences", "options", "message"),
    [
        ([], {}, "at least one training seed"),
        ([[]], {}, "n >= 1"),
        ([[1.0, math.nan]], {}, "1 values that are not finite"),
        ([[[1.0]]], {}, "shape"),
        ([[1.0], [1.0, 2.0]], {}, "shared_examples=False"),
        ([[1.0]], {"resamples": 0}, "resamples"),
        ([[1.0]], {"confidence": 95.0}, "confidence"),
    ],
)
def test_bootstrap_refuses(differences, options, message):
    with pytest.raises(ValueError, match=message):
        hierarchical_bootstrap(differences, **options)


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (1, 0), (3, 3), (10, 2), (2, 10), (400, 500), (0, 1200)])
def test_mcnemar_is_the_two_sided_binomial_test(only_a, only_b):
    a = np.array([True] * only_a + [False] * only_b + [True, False])
    b = np.array([False] * only_a + [True] * only_b + [True, False])
    found = mcnemar(a, b)
    assert (found.only_a, found.only_b) == (only_a, only_b)
    total = only_a + only_b
    assert found.p == pytest.approx(binomtest(only_a, total).pvalue if total else 1.0, rel=1e-9)


def test_mcnemar_by_hand():
    # 7 against 1: the chance of 0 or 1 of 8 is 9/256, twice that is the p.
    assert mcnemar([1] * 7 + [0], [0] * 7 + [1]).p == 18 / 256


@pytest.mark.parametrize(("a", "b"), [([], []), ([1, 0], [1]), ([[1]], [[0]])])
def test_mcnemar_refuses(a, b):
    with pytest.raises(ValueError, match="same examples"):
        mcnemar(a, b)
