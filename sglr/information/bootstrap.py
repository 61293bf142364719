"""95% bootstrap intervals (Efron 1979) over the examples of one run.

Of means, ratios, differences and plug-in statistics.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import ArrayLike

from sglr.information.checks import Floats, Integers

RESAMPLES = 1000
_CONFIDENCE = 0.95
_CELLS = 2**22


def mean_interval(values: ArrayLike, generator: np.random.Generator, *, resamples: int = RESAMPLES) -> dict[str, float]:
    """``low`` and ``high`` of the mean of values (N,), N >= 1; the values themselves are taken as given.

    It reflects which examples were drawn, not what another training run would have given.
    """
    column = np.asarray(values, dtype=np.float64)
    return _percentiles(_replicates(column[:, None], generator, resamples)[:, 0])


def ratio_interval(
    numerators: ArrayLike,
    denominators: ArrayLike,
    generator: np.random.Generator,
    *,
    resamples: int = RESAMPLES,
) -> dict[str, float]:
    """``low`` and ``high`` of sum(numerators) / sum(denominators), both (N,), examples redrawn as pairs.

    The denominators' sum must be positive in every resample; ValueError otherwise.
    """
    columns = np.stack([np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)], axis=1)
    means = _replicates(columns, generator, resamples)
    if not (means[:, 1] > 0).all():
        raise ValueError("the denominators of a ratio add up to nothing in some resample")
    return _percentiles(means[:, 0] / means[:, 1])


def difference_interval(
    first: ArrayLike, second: ArrayLike, generator: np.random.Generator, *, resamples: int = RESAMPLES
) -> dict[str, float]:  # fmt: skip
    """``low`` and ``high`` of mean(first) - mean(second), two independent samples (N,) and (M,), each redrawn.

    For the same examples, which are pairs, take ``mean_interval`` of the differences: it is narrower.
    """
    means = [
        _replicates(np.asarray(values, dtype=np.float64)[:, None], generator, resamples)[:, 0]
        for values in (first, second)
    ]
    return _percentiles(means[0] - means[1])


def counts_interval(
    counts: ArrayLike, statistic: Callable[[Integers], float], generator: np.random.Generator, *,
    resamples: int = RESAMPLES,
) -> dict[str, float]:  # fmt: skip
    """``low`` and ``high`` of a biased statistic of a table of counts, examples redrawn: a basic interval.

    Made for plug-in mutual information, see ``_reflected``; it may be below 0 where the statistic cannot.
    """
    table = np.asarray(counts)
    n = int(table.sum())
    if n == 0:
        raise ValueError("a table without counts cannot be redrawn")
    drawn = generator.multinomial(n, table.ravel() / n, size=resamples)
    replicates = np.array([statistic(row.reshape(table.shape)) for row in drawn], dtype=np.float64)
    return _reflected(replicates, float(statistic(table)))


def groups_interval(
    values: ArrayLike, groups: Integers, generator: np.random.Generator, *, resamples: int = RESAMPLES
) -> dict[str, float]:  # fmt: skip
    """``low`` and ``high`` of sum_g |sum of the values (N,) in group g| / N, examples redrawn: a calibration error.

    A basic interval, see ``_reflected``; it may be below 0 where the error cannot.
    """
    column = np.asarray(values, dtype=np.float64)
    n, size = len(column), int(groups.max(initial=0)) + 1

    def errors(index: Integers) -> Floats:
        cells = groups[index] + size * np.arange(len(index))[:, None]
        sums = np.bincount(cells.ravel(), column[index].ravel(), size * len(index))
        found: Floats = np.abs(sums.reshape(-1, size)).sum(1) / n
        return found

    replicates = np.concatenate([errors(index) for index in _resampled(n, generator, resamples)])
    return _reflected(replicates, float(errors(np.arange(n)[None])[0]))


def _replicates(columns: Floats, generator: np.random.Generator, resamples: int) -> Floats:
    """Means (R, K) of rows of columns (N, K) drawn N times with replacement, R times."""
    return np.concatenate([columns[index].mean(1) for index in _resampled(len(columns), generator, resamples)])


def _resampled(n: int, generator: np.random.Generator, resamples: int) -> Iterator[Integers]:
    """Indices of R resamples of n examples as arrays (some, n); what is drawn does not depend on how it is cut."""
    if n < 1:
        raise ValueError("the mean of no values is not defined")
    chunk = max(1, _CELLS // n)
    for start in range(0, resamples, chunk):
        yield generator.integers(n, size=(min(chunk, resamples - start), n))


def _percentiles(replicates: Floats) -> dict[str, float]:
    tail = (1 - _CONFIDENCE) / 2
    low, high = np.quantile(replicates, [tail, 1 - tail])
    return {"low": float(low), "high": float(high)}


def _reflected(replicates: Floats, estimate: float) -> dict[str, float]:
    """The basic interval: the percentile interval mirrored at the estimate (Davison & Hinkley 1997, section 5.2).

    For statistics that few examples make too high, such as plug-in information and calibration errors: a resample is
    as far above the estimate as that is above the truth, so percentiles carry the bias twice and this takes it off.
    Where the bias is large the interval lies below the estimate.
    """
    found = _percentiles(replicates)
    return {"low": 2 * estimate - found["high"], "high": 2 * estimate - found["low"]}
