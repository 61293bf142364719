"""Wilson's interval for one accuracy, McNemar's test for two models, mean and deviation."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


def wilson(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Two-sided score interval (low, high) of a proportion, within [0, 1] (Wilson 1927, no continuity correction).

    successes: how many of n examples counted. Raises ValueError for n below 1, successes outside 0..n, or a confidence
    outside (0, 1).
    """
    given = successes, n
    successes, n = int(successes), int(n)  # NumPy's would overflow
    if (successes, n) != given or n < 1 or not 0 <= successes <= n:
        raise ValueError(f"an interval needs counts, n >= 1 and 0 <= successes <= n, found {given[0]} of {given[1]}")
    z = statistics.NormalDist().inv_cdf(0.5 + checked(confidence) / 2)
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
    m = 0. ValueError for arrays of unequal or no length, and for other values than True and False, or 1 and 0.
    """
    given = [np.asarray(correct) for correct in (correct_a, correct_b)]
    if not all(outcomes.dtype == bool or np.isin(outcomes, (0, 1)).all() for outcomes in given):
        raise ValueError("a paired test needs outcomes: True where a model is right, False where it is wrong")
    a, b = (outcomes.astype(bool) for outcomes in given)
    if a.ndim != 1 or a.shape != b.shape or a.size == 0:
        raise ValueError(f"a paired test needs outcomes (n,) of the same examples, found {a.shape} and {b.shape}")
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    m, fewer = only_a + only_b, min(only_a, only_b)
    # Whole numbers throughout: exact for any m.
    tail = term = 1
    for k in range(fewer):
        term = term * (m - k) // (k + 1)
        tail += term
    return Paired(only_a, only_b, min(1.0, 2 * tail / 2**m))


def mean_std(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation (n - 1) of at least one number; the deviation of a single one is None."""
    if len(values) == 0:
        raise ValueError("the mean of no values is not defined")
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return float(np.mean(values)), deviation


def checked(confidence: float) -> float:
    """``confidence``, or ValueError where it lies outside (0, 1)."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, found {confidence}")
    return confidence
