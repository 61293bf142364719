"""Entropy of the channel through which a true label becomes a given one, known because the noise was injected."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sglr.data.noise import share
from sglr.information.checks import Floats, Integers, classes
from sglr.information.entropy import entropy


def channel(kind: str, rate: float, num_classes: int, class_map: Mapping[Any, int] | None = None) -> Floats:
    """Probabilities (C, C) of the given label (column) for each true one (row), for the kinds of ``data.noise``.

    none; symmetric: redrawn over all classes, the true one included; symmetric-other: over the wrong ones; asymmetric:
    turned into ``class_map[c]`` where there is one (keys may be text, as JSON has them). The draw itself is without
    replacement, a fixed count of examples, so the labels together hold a little less than n times this entropy: see
    ``drawn_entropy``. Raises ValueError for another kind or rate.
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
            rows[int(source)] = (1 - rate) * same[int(source)] + rate * same[int(target)]
        return rows
    raise ValueError(f"no channel is known for noise of kind {kind!r} with {num_classes} classes")


def channel_entropy(rows: Floats, true: ArrayLike) -> float:
    """H(given | true) = sum_c pi_c H(row c) in nats; pi are the frequencies of the true labels (n,), n >= 1."""
    labels = classes(true, len(np.asarray(true)), len(rows), "true")
    return float(entropy(rows)[labels].mean())


def channel_information(rows: Floats, true: ArrayLike) -> float:
    """I(given; true) = H(sum_c pi_c row c) - H(given | true) in nats, as for ``channel_entropy``: of endlessly many
    labels with these frequencies, where those of a sample seem to share more."""
    labels = classes(true, len(np.asarray(true)), len(rows), "true")
    return float(entropy(rows[labels].mean(0, keepdims=True))[0]) - channel_entropy(rows, true)


def drawn_entropy(
    kind: str, rate: float, num_classes: int, true: ArrayLike, class_map: Mapping[Any, int] | None = None
) -> float:
    """H(y | x) / n in nats of labels drawn as ``data.noise`` draws them: floor(rate n) of n, without replacement.

    With k of n chosen and b(n, k) = log binomial(n, k): symmetric-other b(n, k) + k log(C - 1); asymmetric the sum of
    b(n_c, k_c) over the classes of the map; symmetric b(n, k) + k log C - E b(n - M, k - M), M ~ Binomial(k, 1 - 1/C)
    labels that really changed, because a redrawn label that stays the same leaves no trace. Below ``channel_entropy``
    by about log(2 pi n e (1 - e)) / 2n, e = k / n (symmetric, ten classes: a tenth of it), once per class of the map,
    and by what floor takes off the rate: 0.0044 nats at n = 1,347, 0.0001 at n = 50,000 (rate 0.4). Raises ValueError
    like ``channel``.
    """
    channel(kind, rate, num_classes, class_map)
    labels = classes(true, len(np.asarray(true)), num_classes, "true")
    n, logs = len(labels), np.concatenate([[0.0], np.log(np.arange(1, len(labels) + 1)).cumsum()])

    def ways(of: Integers | int, chosen: Integers | int) -> Floats:
        found: Floats = logs[of] - logs[chosen] - logs[of - chosen]
        return found

    if kind == "none":
        return 0.0
    if kind == "asymmetric":
        members = np.bincount(labels, minlength=num_classes)
        counts = [int(members[int(source)]) for source in class_map or {}]
        return float(sum(ways(count, share(rate, count)) for count in counts) / n)
    k = share(rate, n)
    if kind == "symmetric-other":
        return float(ways(n, k) + k * np.log(num_classes - 1)) / n
    changed = np.arange(k + 1)
    odds = ways(k, changed) + changed * np.log(max(num_classes - 1, 1)) - k * np.log(num_classes)
    return float(ways(n, k) + k * np.log(num_classes) - (np.exp(odds) * ways(n - changed, k - changed)).sum()) / n
