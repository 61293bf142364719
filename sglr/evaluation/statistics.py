"""Intervals: Wilson's for one accuracy, a bootstrap over training seeds and test examples for contrasts of methods."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sglr.random import numpy_stream

Floats = NDArray[np.float64]

# With fewer seeds the percentile interval is visibly too narrow (see `hierarchical_bootstrap`).
_FEW_SEEDS = 10
_CELLS = 2**22


def wilson(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Two-sided score interval (low, high) of a proportion, within [0, 1] (Wilson 1927, no continuity correction).

    successes: how many of n examples counted. Raises ValueError for n below 1, successes outside 0..n, or a confidence
    outside (0, 1).
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"an interval needs n >= 1 and 0 <= successes <= n, found {successes} of {n}")
    z = statistics.NormalDist().inv_cdf(0.5 + _checked(confidence) / 2)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    margin = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # At the ends centre and margin are equal, or add up to 1, but for rounding.
    low = 0.0 if successes == 0 else max(0.0, centre - margin)
    high = 1.0 if successes == n else min(1.0, centre + margin)
    return low, high


@dataclass(frozen=True)
class Paired:
    """Two models on the same examples: how many only a, or only b, gets right, and the two-sided p of no difference."""

    only_a: int
    only_b: int
    p: float


def mcnemar(correct_a: ArrayLike, correct_b: ArrayLike) -> Paired:
    """McNemar's exact test (1947) of two models' outcomes (n,) on the same examples.

    Where both are right, or both wrong, nothing tells them apart; of the m others each falls to either with probability
    1/2 if they are equally accurate: p is that of a binomial count at least as far from m/2 as the one found, 1 for
    m = 0. ValueError for arrays of unequal or no length.
    """
    a, b = np.asarray(correct_a, dtype=bool), np.asarray(correct_b, dtype=bool)
    if a.ndim != 1 or a.shape != b.shape or a.size == 0:
        raise ValueError(f"a paired test needs outcomes (n,) of the same examples, found {a.shape} and {b.shape}")
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    m, fewer = only_a + only_b, min(only_a, only_b)
    # Whole numbers throughout: exact for any m.
    tail = sum(math.comb(m, k) for k in range(fewer + 1))
    return Paired(only_a, only_b, min(1.0, 2 * tail / 2**m))


def mean_std(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation (n - 1) of at least one number; the deviation of a single one is None."""
    if len(values) == 0:
        raise ValueError("the mean of no values is not defined")
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return float(np.mean(values)), deviation


@dataclass(frozen=True)
class Interval:
    """A point estimate with its interval, and what was redrawn to obtain it.

    point: mean over seeds of the means over examples; low, high: percentiles of ``resamples`` replicates; examples:
    their number for each seed; resampled: "seeds and examples", or "examples" when there is one seed; caution: what the
    interval does not show, empty when there is nothing to warn of.
    """

    point: float
    low: float
    high: float
    confidence: float
    seeds: int
    examples: tuple[int, ...]
    resamples: int
    resampled: str
    caution: str


def hierarchical_bootstrap(
    differences: Sequence[ArrayLike],
    *,
    resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
    shared_examples: bool = True,
) -> Interval:
    """Percentile interval of a mean contrast that counts both training seeds and test examples.

    differences: one float array (n,) per training seed. An entry is one test example's contrast between two methods
    trained with that seed, so that methods stay paired: for gap(at) - gap(sglr) it is
    (at_best - at_last) - (sglr_best - sglr_last) with outcomes 0 or 1, for last(sglr) - last(at) it is
    sglr_last - at_last.

    Each replicate redraws the seeds with replacement, then examples with replacement. With ``shared_examples`` entry i
    of every seed is the same test example, and one draw of examples serves all seeds of the replicate: what an example
    contributes with every seed does not average out over seeds, and drawing anew within each seed would take it to.
    Without it examples are drawn within each redrawn seed (a test set per seed, of any size).

    Too narrow for few seeds, like every percentile bootstrap: of the variance between S seeds it sees (S - 1)/S. Where
    that variance dominates, a 95% interval covers about 50% with 2 seeds, 83% with 5, 90% with 10. ``caution`` says so.

    Raises ValueError for no seeds, empty or non-finite arrays, shared examples of unequal number, resamples below 1.
    """
    contrasts = _contrasts(differences, shared_examples)
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, found {resamples}")
    tail = (1 - _checked(confidence)) / 2
    generator = numpy_stream(seed, "hierarchical bootstrap")
    drawn = generator.integers(len(contrasts), size=(resamples, len(contrasts)))
    draw = _shared if shared_examples else _nested
    replicates = draw(contrasts, drawn, generator)
    low, high = np.quantile(replicates, [tail, 1 - tail])
    return Interval(
        point=float(np.mean([contrast.mean() for contrast in contrasts])),
        low=float(low),
        high=float(high),
        confidence=confidence,
        seeds=len(contrasts),
        examples=tuple(len(contrast) for contrast in contrasts),
        resamples=resamples,
        resampled="examples" if len(contrasts) == 1 else "seeds and examples",
        caution=_caution(len(contrasts)),
    )


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


def _caution(seeds: int) -> str:
    if seeds == 1:
        return "one training seed: only test examples were redrawn, so the interval says nothing about other seeds"
    if seeds < _FEW_SEEDS:
        return f"{seeds} training seeds: the interval is too narrow, most of all if seeds differ more than examples do"
    return ""


def _checked(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, found {confidence}")
    return confidence
