"""Entropy of the channel through which a true label becomes a given one, known because the noise was injected."""

import numpy as np
from numpy.typing import ArrayLike

from sglr.information.checks import Floats, classes
from sglr.information.entropy import entropy


def channel(kind: str, rate: float, num_classes: int, class_map: dict[int, int] | None = None) -> Floats:
    """Probabilities (C, C) of the given label (column) for each true one (row), for the kinds of ``data.noise``.

    none; symmetric: redrawn over all classes, the true one included; symmetric-other: over the wrong ones; asymmetric:
    turned into ``class_map[c]`` where there is one. The draw itself is without replacement, so that exactly
    floor(rate n) examples are redrawn: given the count, labels are not independent, and together hold less than n times
    this entropy, by at most about half the logarithm of n in total. Raises ValueError for another kind or rate.
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"a noise rate lies between 0 and 1, found {rate}")
    same = np.eye(num_classes)
    if kind == "none":
        return same
    if kind == "symmetric":
        return (1 - rate) * same + rate / num_classes
    if kind == "symmetric-other" and num_classes > 1:
        return (1 - rate) * same + rate * (1 - same) / (num_classes - 1)
    if kind == "asymmetric":
        rows = same.copy()
        for source, target in (class_map or {}).items():
            rows[source] = (1 - rate) * same[source] + rate * same[target]
        return rows
    raise ValueError(f"no channel is known for noise of kind {kind!r} with {num_classes} classes")


def channel_entropy(rows: Floats, true: ArrayLike) -> float:
    """H(given | true) = sum_c pi_c H(row c) in nats; pi are the frequencies of the true labels (n,), n >= 1."""
    labels = classes(true, len(np.asarray(true)), len(rows), "true")
    return float(entropy(rows)[labels].mean())


def channel_information(rows: Floats, true: ArrayLike) -> float:
    """I(given; true) = H(given) - H(given | true) in nats, with the frequencies of the true labels (n,), n >= 1."""
    labels = classes(true, len(np.asarray(true)), len(rows), "true")
    marginal = rows[labels].mean(0)
    return float(entropy([marginal])[0]) - channel_entropy(rows, labels)
