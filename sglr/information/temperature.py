"""Temperature scaling (Guo et al. 2017): one number that makes a network as sure as it is right."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from sglr.information import calibration
from sglr.information.checks import Floats, classes, log_distributions

# The likelihood has no minimum where all predictions are right, or none: T is looked for in this range.
RANGE = (0.01, 100.0)
_STEPS = 80


@dataclass(frozen=True)
class Temperature:
    """T > 0, and whether it ended at an end of RANGE, where the likelihood would still improve beyond it."""

    value: float
    at_bound: bool


def scaled(log_probs: ArrayLike, temperature: float) -> Floats:
    """log softmax(z / T) (N, C) of log softmax(z) (N, C): the constant that was taken off z drops out."""
    z = log_distributions(log_probs) / temperature
    z -= z.max(1, keepdims=True)
    values: Floats = z - np.log(np.exp(z).sum(1, keepdims=True))
    return values


def fit(log_probs: ArrayLike, labels: ArrayLike) -> Temperature:
    """The temperature of least mean negative log-likelihood of labels (N,), to a relative 1e-6.

    The likelihood is convex in 1/T, so it has one minimum over log T, which golden sections find. Fit it on examples
    other than those it is judged on. Raises ValueError for rows that are not log-probabilities, or labels that do not
    fit.
    """
    rows = log_distributions(log_probs)
    truth = classes(labels, *rows.shape)

    def loss(log_t: float) -> float:
        return float(calibration.nll(scaled(rows, float(np.exp(log_t))), truth).mean())

    low, high = ends = np.log(RANGE[0]), np.log(RANGE[1])
    ratio = (np.sqrt(5) - 1) / 2
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = loss(left), loss(right)
    for _ in range(_STEPS):
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = loss(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = loss(right)
    best = (low + high) / 2
    return Temperature(float(np.exp(best)), bool(min(best - ends[0], ends[1] - best) < 1e-3))
