"""Percentile bootstrap intervals (Efron 1979) over the examples of one run: means, ratios, tables of counts."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from sglr.information.checks import Floats, Integers

RESAMPLES = 1000
_CELLS = 2**22


def mean_interval(
    values: ArrayLike, generator: np.random.Generator, *, resamples: int = RESAMPLES, confidence: float = 0.95
) -> dict[str, float]:
    """``low`` and ``high`` of the mean of values (N,), N >= 1; the values themselves are taken as given.

    It shows which examples happened to be drawn, nothing of what another training run would have given.
    """
    column = np.asarray(values, dtype=np.float64)
    return _percentiles(_replicates(column[:, None], generator, resamples)[:, 0], confidence)


def ratio_interval(
    numerators: ArrayLike,
    denominators: ArrayLike,
    generator: np.random.Generator,
    *,
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
) -> dict[str, float]:
    """``low`` and ``high`` of sum(numerators) / sum(denominators), both (N,), examples redrawn as pairs.

    The denominators' sum must be positive in every resample; ValueError otherwise.
    """
    columns = np.stack([np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)], axis=1)
    means = _replicates(columns, generator, resamples)
    if not (means[:, 1] > 0).all():
        raise ValueError("the denominators of a ratio add up to nothing in some resample")
    return _percentiles(means[:, 0] / means[:, 1], confidence)


def difference_interval(
    first: ArrayLike, second: ArrayLike, generator: np.random.Generator, *, resamples: int = RESAMPLES,
    confidence: float = 0.95,
) -> dict[str, float]:  # fmt: skip
    """``low`` and ``high`` of mean(first) - mean(second), two independent samples (N,) and (M,), each redrawn."""
    means = [
        _replicates(np.asarray(values, dtype=np.float64)[:, None], generator, resamples)[:, 0]
        for values in (first, second)
    ]
    return _percentiles(means[0] - means[1], confidence)


def counts_interval(
    counts: ArrayLike, statistic: Callable[[Integers], float], generator: np.random.Generator, *,
    resamples: int = RESAMPLES, confidence: float = 0.95,
) -> dict[str, float]:  # fmt: skip
    """``low`` and ``high`` of a statistic of a table of counts, redrawn as a whole: examples with replacement."""
    table = np.asarray(counts)
    n = int(table.sum())
    if n == 0:
        raise ValueError("a table without counts cannot be redrawn")
    drawn = generator.multinomial(n, table.ravel() / n, size=resamples)
    return _percentiles(np.array([statistic(row.reshape(table.shape)) for row in drawn]), confidence)


def groups_interval(
    values: ArrayLike, groups: Integers, generator: np.random.Generator, *, resamples: int = RESAMPLES,
    confidence: float = 0.95,
) -> dict[str, float]:  # fmt: skip
    """``low`` and ``high`` of sum_g |sum of the values (N,) in group g| / N, examples redrawn: a calibration error."""
    column = np.asarray(values, dtype=np.float64)
    n = len(column)
    by_group = np.zeros((n, int(groups.max()) + 1))
    by_group[np.arange(n), groups] = column
    chunk = max(1, _CELLS // n)
    sizes = [min(chunk, resamples - start) for start in range(0, resamples, chunk)]
    even = np.full(n, 1 / n)
    parts = [np.abs(generator.multinomial(n, even, size=size) @ by_group).sum(1) / n for size in sizes]
    return _percentiles(np.concatenate(parts), confidence)


def _replicates(columns: Floats, generator: np.random.Generator, resamples: int) -> Floats:
    """Means (R, K) of rows of columns (N, K) drawn N times with replacement, R times."""
    n = len(columns)
    if n == 0:
        raise ValueError("the mean of no values is not defined")
    chunk = max(1, _CELLS // n)
    sizes = [min(chunk, resamples - start) for start in range(0, resamples, chunk)]
    return np.concatenate([columns[generator.integers(n, size=(size, n))].mean(1) for size in sizes])


def _percentiles(replicates: Floats, confidence: float) -> dict[str, float]:
    tail = (1 - confidence) / 2
    low, high = np.quantile(replicates, [tail, 1 - tail])
    return {"low": float(low), "high": float(high)}
