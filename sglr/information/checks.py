"""Checks of the estimators' inputs: rows of probabilities, and labels that match them."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Rows come from float32 networks and tables, so their sums are 1 up to that precision.
_SUM_TOLERANCE = 1e-4


def distributions(values: ArrayLike, name: str = "probs") -> Floats:
    """``values`` as float64 (N, C); ValueError unless N, C >= 1 and every row is a probability vector."""
    rows = np.asarray(values, dtype=np.float64)
    if rows.ndim != 2 or rows.size == 0:
        raise ValueError(f"{name} must be (N, C) with at least one row and one class, found shape {rows.shape}")
    # Written so that NaN fails it too.
    if not ((rows >= 0) & (rows <= 1 + _SUM_TOLERANCE)).all() or not (abs(rows.sum(1) - 1) <= _SUM_TOLERANCE).all():
        raise ValueError(f"{name} must hold probabilities: entries in [0, 1], every row adding up to 1")
    return rows


def log_distributions(values: ArrayLike) -> Floats:
    """``values`` as float64 (N, C); ValueError unless every row is the logarithm of a probability vector."""
    rows = np.asarray(values, dtype=np.float64)
    distributions(np.exp(rows), "exp(log_probs)")
    return rows


def classes(values: ArrayLike, n: int, num_classes: int, name: str = "labels") -> Integers:
    """``values`` as int64 (n,); ValueError unless there are n whole numbers in 0..num_classes - 1."""
    labels = np.asarray(values)
    if labels.shape != (n,) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"{name} must be {n} whole numbers, found shape {labels.shape} of {labels.dtype}")
    if n and (labels.min() < 0 or labels.max() >= num_classes):
        raise ValueError(f"{name} must lie in 0..{num_classes - 1}, found {labels.min()} to {labels.max()}")
    return labels.astype(np.int64)
