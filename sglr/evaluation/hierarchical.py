"""Intervals of contrasts between methods, over training seeds and test examples."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sglr.evaluation.statistics import checked
from sglr.random import numpy_stream

Floats = NDArray[np.float64]

_CELLS = 2**22
# With fewer contrasts that differ from the rest no interval is made narrower than its percentiles.
_FEW = 20


@dataclass(frozen=True)
class Interval:
    """A point estimate with its interval.

    point: mean over seeds of the means over examples; low, high: ends; examples: their number for each seed; stretch:
    how many times as wide the interval is as percentiles of the ``resamples`` replicates: more than once where seeds
    are few and differ, less where the replicates count what pairs of seed and example add more than once.
    """

    point: float
    low: float
    high: float
    confidence: float
    seeds: int
    examples: tuple[int, ...]
    resamples: int
    stretch: float


def hierarchical_bootstrap(
    differences: Sequence[ArrayLike],
    *,
    resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
    shared_examples: bool = True,
) -> Interval:
    """Interval of a mean contrast that counts both training seeds and test examples, the few seeds among them.

    differences: one float array (n,) per training seed. An entry is one test example's contrast between two methods
    trained with that seed, so that methods stay paired: for gap(at) - gap(sglr) it is
    (at_best - at_last) - (sglr_best - sglr_last) with outcomes 0 or 1, for last(sglr) - last(at) it is
    sglr_last - at_last.

    Each replicate redraws the seeds with replacement, then examples with replacement. With ``shared_examples`` entry i
    of every seed is the same test example, and one draw of examples serves all seeds of the replicate: what an example
    contributes with every seed does not average out over seeds, as it would wrongly with a draw for each seed.
    Without it examples are drawn within each redrawn seed (a test set per seed, of any size).

    Percentiles of the replicates have the right shape and a wrong width. They are too narrow for few seeds: of the
    variance between S seeds they see (S - 1)/S, and they take it for known (where it dominates, 95% intervals cover 50%
    with 2 seeds, 75% with 3, 82% with 5). They are too wide for many where pairs of seed and example have a noise of
    their own, which two draws count up to three times (Owen, 2007, The pigeonhole bootstrap). They are therefore
    stretched about the point until half their width is sqrt(t^2_{S-1} v_S + t^2_{n-1} v_n): v_S, v_n are what seeds and
    examples contribute to the mean's variance, t are quantiles of Student's distribution. It is at least what pairs
    alone would leave: few seeds may agree by chance. Satterthwaite's degrees of freedom for the sum are not used: they
    take seeds that happen to agree for many. Below 20 contrasts that differ from the most frequent value nothing is
    made narrower: percentiles that end at 0 would be drawn past it by one example that differs. Where so few are not 0
    that no sign test could tell them from 0 (five examples at 95%, all of one sign, with however many seeds), the
    interval reaches to 0. With one seed examples alone are redrawn, and the interval says nothing about other seeds.

    It knows only values that it has seen: where all contrasts are equal it has no width, and where one example in a
    hundred is expected to differ, too few samples have one (with a share of 0.01 of 100 examples of one seed, 95%
    intervals cover 61%; 0.005 of 300, 78%). AutoAttack on few examples, of methods that hardly differ, is such a case.

    For two seeds and more it needs SciPy. Raises ValueError for no seeds, empty or non-finite arrays, shared examples
    of unequal number, resamples below 1.
    """
    contrasts = _contrasts(differences, shared_examples)
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, found {resamples}")
    tail = (1 - checked(confidence)) / 2
    generator = numpy_stream(seed, "hierarchical bootstrap")
    drawn = generator.integers(len(contrasts), size=(resamples, len(contrasts)))
    draw = _shared if shared_examples else _nested
    replicates = draw(contrasts, drawn, generator)
    point = float(np.mean([contrast.mean() for contrast in contrasts]))
    ends = np.quantile(replicates, [tail, 1 - tail])
    stretch = _stretch(contrasts, shared_examples, float(ends[1] - ends[0]) / 2, 1 - tail)
    if _differing(contrasts) < _FEW:
        stretch = max(1.0, stretch)
    low, high = point + stretch * (ends - point)
    if 2.0 ** (1 - _not_zero(contrasts, shared_examples)) > 1 - confidence:
        low, high = min(low, 0.0), max(high, 0.0)
    return Interval(
        point=point,
        low=float(low),
        high=float(high),
        confidence=confidence,
        seeds=len(contrasts),
        examples=tuple(len(contrast) for contrast in contrasts),
        resamples=resamples,
        stretch=stretch,
    )


def _stretch(contrasts: list[Floats], shared: bool, seen: float, upper: float) -> float:
    """How many times as wide as percentiles whose half-width is ``seen`` an interval should be.

    Two-way layout without repetition: the mean's variance is that between the seeds' means over S, plus, where seeds
    share their examples, that between the examples' means over n, less what both contain of each pair's own.
    """
    count = len(contrasts)
    if count == 1 or seen == 0:
        return 1.0
    from scipy.special import stdtrit

    def squared(freedom: int, variance: float) -> float:
        """The square of half a width by Student's t."""
        return float(stdtrit(freedom, upper)) ** 2 * variance if variance > 0 else 0.0

    means = np.array([contrast.mean() for contrast in contrasts])
    seeds, n = float(means.var(ddof=1)) / count, min(len(contrast) for contrast in contrasts)
    if n == 1:
        return math.sqrt(squared(count - 1, seeds)) / seen
    if not shared:
        own = sum(float(contrast.var(ddof=1)) / len(contrast) for contrast in contrasts) / count**2
        freedom = sum(len(contrast) - 1 for contrast in contrasts)
        return math.sqrt(max(squared(count - 1, seeds), squared(freedom, own))) / seen
    values = np.stack(contrasts)
    rest = values - means[:, None] - values.mean(0) + means.mean()
    freedom = (count - 1) * (n - 1)
    pairs = float((rest**2).sum()) / freedom
    examples = (float(values.mean(0).var(ddof=1)) - pairs / count) / n
    wanted = squared(count - 1, seeds) + squared(n - 1, examples)
    return math.sqrt(max(wanted, squared(freedom, pairs / (count * n)))) / seen


def _differing(contrasts: list[Floats]) -> int:
    """How many contrasts, of all seeds, are not the most frequent value."""
    counts = np.unique(np.concatenate(contrasts), return_counts=True)[1]
    return int(counts.sum() - counts.max())


def _not_zero(contrasts: list[Floats], shared: bool) -> int:
    """How many examples have a contrast that is not 0: shared ones are one each, with however many seeds."""
    if shared:
        return int(np.count_nonzero(np.stack(contrasts).any(0)))
    return sum(int(np.count_nonzero(contrast)) for contrast in contrasts)


def _shared(contrasts: list[Floats], drawn: NDArray[np.int64], generator: np.random.Generator) -> Floats:
    """Replicates (R,): one draw of examples for all seeds of a replicate."""
    means = _resampled_means(np.stack(contrasts, axis=1), len(drawn), generator)
    replicates: Floats = np.take_along_axis(means, drawn, axis=1).mean(1)
    return replicates


def _nested(contrasts: list[Floats], drawn: NDArray[np.int64], generator: np.random.Generator) -> Floats:
    """Replicates (R,): examples drawn anew for every redrawn seed."""
    means = np.empty(drawn.shape)
    for number, contrast in enumerate(contrasts):
        chosen = drawn == number
        means[chosen] = _resampled_means(contrast[:, None], int(chosen.sum()), generator)[:, 0]
    replicates: Floats = means.mean(1)
    return replicates


def _resampled_means(values: Floats, resamples: int, generator: np.random.Generator) -> Floats:
    """Column means (R, S) of ``resamples`` draws of n rows with replacement from values (n, S).

    Equal rows are counted together: contrasts of outcomes take few values, and only how often each is drawn matters.
    """
    rows, counts = np.unique(values, axis=0, return_counts=True)
    n = len(values)
    chunk = max(1, _CELLS // len(rows))
    sizes = [min(chunk, resamples - start) for start in range(0, resamples, chunk)]
    parts = [generator.multinomial(n, counts / n, size=size) @ rows / n for size in sizes]
    return np.concatenate(parts) if parts else np.empty((0, values.shape[1]))


def _contrasts(differences: Sequence[ArrayLike], shared: bool) -> list[Floats]:
    contrasts = [np.asarray(difference, dtype=np.float64) for difference in differences]
    if not contrasts:
        raise ValueError("a bootstrap needs the contrasts of at least one training seed, found none")
    for number, contrast in enumerate(contrasts):
        if contrast.ndim != 1 or contrast.size == 0 or not np.isfinite(contrast).all():
            raise ValueError(
                f"contrasts must be finite numbers (n,) with n >= 1 for every seed; those at position {number} have"
                f" shape {contrast.shape} and {int((~np.isfinite(contrast)).sum())} values that are not finite"
            )
    sizes = sorted({len(contrast) for contrast in contrasts})
    if shared and len(sizes) > 1:
        raise ValueError(f"seeds that share examples have equally many, found {sizes}: pass shared_examples=False")
    return contrasts
