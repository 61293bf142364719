"""Whether a model is right more often than one that always answers the most frequent class."""

import numpy as np
from torch import Tensor, bincount

from sglr.evaluation.statistics import wilson

# 95% would flag two wrong answers out of two.
_CONFIDENCE = 0.99


def at_chance(correct: np.ndarray, labels: Tensor) -> list[str]:
    """A flag where natural accuracy is not above the share of the largest class among the evaluated labels.

    correct: outcomes without an attack (n,), bool; labels: those of the same examples (n,), int64. The flag needs both
    ends of accuracy's 99% Wilson interval: the lower one is not above the share, and the upper one is below twice the
    odds of that class. Nothing is said where few examples leave accuracy open: a model whose odds of being right are
    twice those of the class is flagged about once in 200 times. Labels of one class alone tell nothing. The rule is
    this project's own.
    """
    n, largest = len(correct), int(bincount(labels).max())
    share = largest / n
    low, high = wilson(int(correct.sum()), n, _CONFIDENCE)
    if largest == n or low > share or high >= 2 * share / (1 + share):
        return []
    return [
        f"natural accuracy, {correct.mean():.1%} of {n:,} test examples, is not above the {share:.1%} of always"
        " answering the most frequent class: every other number of this model is meaningless. Usual causes: images"
        " normalised in another way than in training (or twice, or not at all), classes numbered in another order,"
        " training that collapsed"
    ]
