"""Temperature scaling (Guo et al. 2017): one number that makes a network as sure as it is right."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from sglr.information.checks import Floats, classes, log_distributions

# The likelihood has no minimum where all predictions are right, or no better than chance: T is looked for in here.
RANGE = (0.01, 100.0)
_PRECISION = 1e-9
_EQUAL = 1e-12


@dataclass(frozen=True)
class Temperature:
    """T in RANGE, and whether it ended at an end of it, where the likelihood would still improve beyond."""

    value: float
    at_bound: bool


def scaled(log_probs: ArrayLike, temperature: float) -> Floats:
    """log softmax(z / T) (N, C) of log softmax(z) (N, C): the constant that was taken off z drops out.

    ValueError for rows that are not log-probabilities, or a temperature that is not finite and above 0.
    """
    if not 0 < temperature < math.inf:
        raise ValueError(f"a temperature must be finite and above 0, found {temperature}")
    z = log_distributions(log_probs) / temperature
    z -= z.max(1, keepdims=True)
    values: Floats = z - np.log(np.exp(z).sum(1, keepdims=True))
    return values


def fit(log_probs: ArrayLike, labels: ArrayLike) -> Temperature:
    """The temperature of least mean negative log-likelihood of labels (N,), to a relative 1e-9.

    The likelihood is convex in b = 1/T, and its slope, the mean of E_b[z_c] - z_y, increases with b: Brent's method (by
    SciPy) finds where it is 0. Predictors of equal probabilities, for which every T is the same, get T = 1. Fit it on
    examples other than those it is judged on. Raises ValueError for rows that are not log-probabilities, labels that do
    not fit, and labels of probability 0, which no temperature can mend.
    """
    from scipy.optimize import brentq

    rows = log_distributions(log_probs)
    chosen = rows[np.arange(len(rows)), classes(labels, *rows.shape)]
    if not np.isfinite(chosen).all():
        raise ValueError(f"{int((~np.isfinite(chosen)).sum())} labels have probability 0: no temperature changes that")
    # Relative to the label, so that the slope of a sure and right prediction keeps its sign however small it is.
    ahead = rows - chosen[:, None]
    if np.abs(ahead).max() <= _EQUAL:
        return Temperature(1.0, False)
    low, high = (math.log(1 / end) for end in reversed(RANGE))
    if _slope(ahead, high) <= 0:
        return Temperature(RANGE[0], True)
    if _slope(ahead, low) >= 0:
        return Temperature(RANGE[1], True)
    # In the logarithm: the range spans orders of magnitude, and the precision is relative.
    return Temperature(math.exp(-brentq(lambda log_b: _slope(ahead, log_b), low, high, xtol=_PRECISION)), False)


def _slope(ahead: Floats, log_b: float) -> float:
    """Derivative of the mean negative log-likelihood with respect to b = 1/T; ahead: z_c - z_y."""
    z = math.exp(log_b) * ahead
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    # 0 times minus infinity: a class of probability 0 adds nothing.
    return float((p * np.where(p > 0, ahead, 0)).sum(1).mean())
