"""Intervals over seeds and examples, against known variances and coverage."""

import math

import numpy as np
import pytest
from scipy import stats

from sglr.evaluation.hierarchical import hierarchical_bootstrap
from sglr.random import numpy_stream


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
        assert found.stretch == 1.0


def simulate(rng, seeds: int, examples: int, *, seed_std: float, example_std: float, shared_std: float) -> np.ndarray:
    """Contrasts (seeds, examples) of mean 0.2: effects of the seed, of the example with every seed, and of the pair."""
    effects = rng.normal(0, seed_std, (seeds, 1)) + rng.normal(0, shared_std, (1, examples))
    return 0.2 + effects + rng.normal(0, example_std, (seeds, examples))


def width_and_coverage(simulations: int, shared: bool, seeds: int = 12, **components: float) -> tuple[float, float]:
    rng = numpy_stream(0, "coverage")
    inside, widths = 0, []
    for number in range(simulations):
        found = hierarchical_bootstrap(
            list(simulate(rng, seeds, 40, **components)), resamples=400, seed=number, shared_examples=shared
        )
        inside += found.low <= 0.2 <= found.high
        widths.append(found.high - found.low)
    return float(np.mean(widths)), inside / simulations


@pytest.mark.parametrize("shared", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_coverage_with_known_variance_components(shared):
    # Examples drawn anew for every seed: both forms are valid. 200 simulations: standard error 0.017.
    _, coverage = width_and_coverage(200, shared, seed_std=0.1, example_std=0.5, shared_std=0)
    assert 0.88 <= coverage <= 0.99


@pytest.mark.slow
def test_coverage_when_seeds_share_their_examples():
    components = {"seed_std": 0.05, "example_std": 0.2, "shared_std": 0.5}
    _, coverage = width_and_coverage(200, True, **components)
    assert 0.88 <= coverage <= 0.99
    # Drawing examples anew within each seed averages their common effect away, and is wrong here.
    _, nested = width_and_coverage(200, False, **components)
    assert nested < 0.75


SEEDS_DOMINATE = {"seed_std": 0.5, "example_std": 0.1, "shared_std": 0.0}
BOTH = {"seed_std": 0.05, "example_std": 0.5, "shared_std": 0.0}


@pytest.mark.parametrize(
    ("seeds", "shared", "components"),
    [
        (2, True, SEEDS_DOMINATE), (3, True, SEEDS_DOMINATE), (5, True, SEEDS_DOMINATE), (3, False, SEEDS_DOMINATE),
        (2, True, BOTH), (3, True, BOTH), (3, False, BOTH),
    ],
)  # fmt: skip
def test_few_seeds_are_covered_too(seeds, shared, components):
    # Percentiles of the replicates cover 50, 75 and 82% where seeds dominate. 200 simulations: standard error 0.017.
    _, coverage = width_and_coverage(200, shared, seeds, **components)
    assert coverage >= 0.91


@pytest.mark.parametrize("seeds", [2, 3])
def test_few_seeds_are_covered_where_they_and_their_examples_count(seeds):
    # Degrees of freedom for the sum of both would cover 89 and 91%: seeds that agree by chance pass for many.
    components = {"seed_std": 0.4, "example_std": 0.1, "shared_std": 0.4 * math.sqrt(40) / 4}
    _, coverage = width_and_coverage(300, True, seeds, **components)
    assert coverage >= 0.93


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "shared"), [(2, True), (3, True), (10, True), (10, False)])
def test_what_pairs_add_is_counted_once(seeds, shared):
    """Percentiles count it three times: they would be 1.67 times as wide as need be with ten seeds."""
    components = {"seed_std": 0.0, "example_std": 1.0, "shared_std": 0.0}
    width, coverage = width_and_coverage(200, shared, seeds, **components)
    assert coverage >= 0.93
    if seeds == 10:
        assert width < 1.35 * 2 * 1.96 / math.sqrt(seeds * 40)


@pytest.mark.parametrize("seeds", [5, 10])
@pytest.mark.parametrize("mean", [1, 4, 12, 24])
def test_the_few_examples_that_differ_prove_nothing(seeds, mean):
    """Contrasts of -1 and 1 at random, so many of 200 a seed that ``mean`` are expected: 0 is the truth."""
    rng, excluded = numpy_stream(0, f"few {seeds} {mean}"), 0
    for number in range(100):
        differ = rng.random((seeds, 200)) < mean / (200 * seeds)
        found = hierarchical_bootstrap(list(differ * rng.choice([-1.0, 1.0], differ.shape)), resamples=400, seed=number)
        excluded += not found.low <= 0 <= found.high
    # Made as narrow as the two-way layout says, nearly half of the first exclude it.
    assert excluded <= 8


@pytest.mark.parametrize("shared", [True, False])
def test_seeds_that_agree_by_chance_leave_what_pairs_leave(shared):
    values = numpy_stream(0, "pairs").normal(0, 1, (2, 60))
    values -= values.mean(1, keepdims=True)
    found = hierarchical_bootstrap(list(values), shared_examples=shared)
    if shared:
        pairs, freedom = (values - values.mean(0)).var() * 120 / 59, 59
    else:
        pairs, freedom = values.var(1, ddof=1).mean(), 118
    # Effects of the examples, as they come out here, are nearly none.
    assert (found.high - found.low) / 2 == pytest.approx(stats.t.ppf(0.975, freedom) * math.sqrt(pairs / 120), rel=0.1)


def test_what_seeds_and_examples_add_is_added_in_squares():
    values = simulate(numpy_stream(0, "both"), 3, 200, seed_std=0.1, example_std=0.2, shared_std=0.5)
    found = hierarchical_bootstrap(list(values))
    seeds = values.mean(1).var(ddof=1) / 3
    pairs = values - values.mean(1, keepdims=True) - values.mean(0) + values.mean()
    examples = (values.mean(0).var(ddof=1) - (pairs**2).sum() / (2 * 199) / 3) / 200
    half = math.sqrt(stats.t.ppf(0.975, 2) ** 2 * seeds + stats.t.ppf(0.975, 199) ** 2 * examples)
    assert (found.high - found.low) / 2 == pytest.approx(half)


def test_a_test_set_per_seed_leaves_the_larger_of_what_seeds_and_examples_leave():
    """Three seeds with 4, 5 and 6 examples, wide within a seed and then wide between seeds; worked out by hand."""
    for spread, offset in ((1.0, 0.1), (0.1, 1.0)):
        values = [spread * np.arange(n) * (-1.0) ** np.arange(n) + offset * n for n in (4, 5, 6)]
        found = hierarchical_bootstrap(values, shared_examples=False)
        own = stats.t.ppf(0.975, 12) * math.sqrt(sum(v.var(ddof=1) / len(v) for v in values) / 9)
        seeds = stats.t.ppf(0.975, 2) * stats.sem([v.mean() for v in values])
        narrowest = (found.high - found.low) / (2 * found.stretch)
        assert found.stretch == pytest.approx(max(1.0, max(own, seeds) / narrowest))  # never narrower: 15 contrasts
        assert (own > seeds) == (spread > offset)


@pytest.mark.parametrize("shared", [True, False])
def test_one_example_a_seed_is_students_t_over_seeds(shared):
    values = numpy_stream(0, "one example").normal(0, 1, 25)
    found = hierarchical_bootstrap(list(values[:, None]), shared_examples=shared)
    low, high = stats.t.interval(0.95, 24, values.mean(), stats.sem(values))
    assert found.high - found.low == pytest.approx(high - low)


@pytest.mark.parametrize(("differing", "told"), [(1, False), (5, False), (6, True), (30, True)])
def test_so_few_that_no_sign_test_could_tell_reach_to_zero(differing, told):
    """2 / 2^5 = 0.0625: five of one sign are no evidence at 95%, however often they are resampled."""
    one = np.zeros(200)
    one[:differing] = 1.0
    found = hierarchical_bootstrap([one])
    assert found.low >= 0
    assert (found.low > 0) == told
    assert (hierarchical_bootstrap([-one]).high < 0) == told
    # Seeds that agree on the same examples are no further ones; of their own test sets they are.
    assert (hierarchical_bootstrap([one] * 10).low > 0) == told
    assert hierarchical_bootstrap([one] * 10, shared_examples=False).low > 0 or differing == 1


@pytest.mark.parametrize(("differing", "narrower"), [(19, False), (20, True)])
def test_few_contrasts_that_differ_never_narrow_it(differing, narrower):
    """Ten seeds, each differing with other examples: all is the pairs' own, which percentiles count three times."""
    values = np.zeros((10, 200))
    values[np.arange(differing) % 10, np.arange(differing)] = 1
    found = hierarchical_bootstrap(list(values))
    assert found.stretch < 1 if narrower else found.stretch == 1


@pytest.mark.parametrize("shared", [True, False])
def test_between_seeds_alone_it_is_students_t(shared):
    """Seeds differ and examples do not: the width is t's, with the percentiles' shape, near 1 when seeds are many."""
    means = numpy_stream(0, "means").normal(0, 1, 40)
    found = hierarchical_bootstrap(list(np.repeat(means[:, None], 5, 1)), resamples=20000, shared_examples=shared)
    low, high = stats.t.interval(0.95, 39, means.mean(), means.std(ddof=1) / math.sqrt(40))
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.05 * (high - low))
    assert found.stretch == pytest.approx(stats.t.ppf(0.975, 39) / 1.96 * math.sqrt(40 / 39), rel=0.01)


def test_where_examples_dominate_seeds_are_no_reason_to_stretch():
    values = simulate(numpy_stream(0, "examples"), 3, 400, seed_std=0, example_std=0.01, shared_std=0.5)
    found = hierarchical_bootstrap(list(values))
    assert found.stretch < 1.02


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
            patch.setattr("sglr.evaluation.hierarchical._CELLS", 100)
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


def test_an_estimate_of_examples_below_zero_takes_nothing_off():
    """Two seeds with opposite pairs: examples seem to vary by less than nothing, and the seeds' part stays."""
    noise = np.tile([1.0, -1.0], 50)
    contrasts = [0.4 + 0.1 * noise, -0.1 * noise]
    found = hierarchical_bootstrap(contrasts)
    seeds = stats.t.ppf(0.975, 1) * 0.2
    assert (found.high - found.low) / 2 >= seeds * (1 - 1e-9)
