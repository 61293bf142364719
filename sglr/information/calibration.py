"""Calibration of class probabilities: expected calibration error, reliability diagram, proper scores."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sglr.information.checks import Floats, Integers, classes, distributions, log_distributions


def ece(probs: ArrayLike, labels: ArrayLike, bins: int = 15) -> float:
    """Expected calibration error of the predicted class, in [0, 1] (Guo et al. 2017, equation 3; Naeini et al. 2015).

    Examples fall into ``bins`` intervals of equal width by their highest probability; the error is the mean over
    examples of |accuracy - mean confidence| of the interval. Biased upwards for few examples per interval.

    probs: (N, C); labels: int (N,). Raises ValueError for input of another form, or bins below 1.
    """
    rows = reliability_table(probs, labels, bins)
    total = sum(row["count"] for row in rows)
    return float(sum(row["count"] * abs(row["accuracy"] - row["confidence"]) for row in rows if row["count"]) / total)


def reliability_table(probs: ArrayLike, labels: ArrayLike, bins: int = 15) -> list[dict[str, Any]]:
    """The rows of a reliability diagram, one per interval (low, high] of confidence, the first one closed.

    Keys: bin (from 0), low, high, count, confidence (mean), accuracy; the last two are None in an empty interval.
    """
    if bins < 1:
        raise ValueError(f"bins must be at least 1, found {bins}")
    rows, truth = _checked(probs, labels)
    confidence = np.minimum(rows.max(1), 1.0)
    correct = rows.argmax(1) == truth
    edges, member = np.linspace(0, 1, bins + 1), _bins(confidence, bins)
    table = []
    for number in range(bins):
        chosen = member == number
        some = bool(chosen.any())
        table.append({
            "bin": number,
            "low": float(edges[number]),
            "high": float(edges[number + 1]),
            "count": int(chosen.sum()),
            "confidence": float(confidence[chosen].mean()) if some else None,
            "accuracy": float(correct[chosen].mean()) if some else None,
        })  # fmt: skip
    return table


def residuals(probs: ArrayLike, labels: ArrayLike, bins: int = 15) -> tuple[Floats, Integers]:
    """correct - confidence (N,) and the bin (N,) of each example: ece = sum_b |sum of the residuals of bin b| / N."""
    rows, truth = _checked(probs, labels)
    confidence = np.minimum(rows.max(1), 1.0)
    return (rows.argmax(1) == truth) - confidence, _bins(confidence, bins)


def nll(log_probs: ArrayLike, labels: ArrayLike) -> Floats:
    """Negative log-likelihood -log p of each example's label (N,), in nats, infinite at probability 0.

    log_probs: (N, C), logarithms, so that a confident mistake, whose probability rounds to 0, stays finite; labels:
    int (N,). The mean is the log score, a proper one. Raises ValueError for input of another form.
    """
    logs = log_distributions(log_probs)
    chosen: Floats = logs[np.arange(len(logs)), classes(labels, *logs.shape)]
    return -chosen + 0.0


def brier(probs: ArrayLike, labels: ArrayLike) -> Floats:
    """Brier score of each example (N,): sum_c (p_c - [c = label])^2, in [0, 2] (Brier 1950, all classes counted)."""
    rows, truth = _checked(probs, labels)
    scores: Floats = np.square(rows - np.eye(rows.shape[1])[truth]).sum(1)
    return scores


def _bins(confidence: Floats, bins: int) -> Integers:
    """Which interval (low, high] of equal width a confidence falls into."""
    edges = np.linspace(0, 1, bins + 1)
    return np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)


def _checked(probs: ArrayLike, labels: ArrayLike) -> tuple[Floats, Integers]:
    rows = distributions(probs)
    return rows, classes(labels, *rows.shape)
