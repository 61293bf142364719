"""Whether the first test examples are a fair sample of all."""

import torch
from torch import Tensor

# Below this probability the first examples are called skewed; with fewer expected in a cell it would not be one.
_LEVEL, _FEW = 1e-9, 3


def skewed(labels: Tensor, sizes: dict[str, int]) -> list[str]:
    """Flags for what sees only the first test examples, by name, where these are not representative of the classes.

    labels: of the whole test split (n,), in its order. Pearson's chi-squared test of the first ones' class counts
    against the shares in the whole, classes of which few are expected taken together.
    """
    found, counts = [], torch.bincount(labels).cpu()
    for n in sorted(set(sizes.values()) - {len(labels)}):
        first = torch.bincount(labels[:n], minlength=len(counts)).cpu()
        cells = torch.tensor(_cells((n * counts.double() / len(labels)).tolist(), first.tolist()), dtype=torch.float64)
        statistic = ((cells[:, 1] - cells[:, 0]) ** 2 / cells[:, 0]).sum()
        half = torch.full_like(statistic, (len(cells) - 1) / 2)
        if len(cells) > 1 and float(torch.special.gammaincc(half, statistic / 2)) < _LEVEL:
            names = ", ".join(name for name, size in sizes.items() if size == n)
            found.append(
                f"{names}: the first {n} test examples are not a representative sample of the classes (one class makes"
                f" up {float(first.max()) / n:.0%} of them): put the test set in random order"
            )
    return found


def _cells(expected: list[float], observed: list[int]) -> list[list[float]]:
    """Counts [expected, observed] of classes, the rare ones together until ``_FEW`` are expected."""
    cells: list[list[float]] = []
    waiting = [0.0, 0.0]
    for class_expected, class_observed in sorted(zip(expected, observed, strict=True), key=lambda pair: pair[0]):
        waiting = [waiting[0] + class_expected, waiting[1] + class_observed]
        if waiting[0] >= _FEW:
            cells.append(waiting)
            waiting = [0.0, 0.0]
    if not cells:
        return [waiting]
    cells[-1] = [cells[-1][0] + waiting[0], cells[-1][1] + waiting[1]]
    return cells
