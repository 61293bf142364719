"""Whether classes, form and order of the test examples suit the attacks."""

from typing import Any

import torch
from torch import Tensor

from sglr.attacks import REGISTRY
from sglr.config import Config, ConfigError, packages

# Below this probability the first examples are called skewed; with fewer expected in a cell it would not be one.
_LEVEL, _FEW = 1e-9, 3


def require_attackable(config: Config, num_classes: int, shape: tuple[int, int, int]) -> None:
    """Raise ConfigError for an attack that cannot attack models of ``num_classes`` and images (C, H, W), or whose
    package is not installed."""
    for key, options in asked(config).items():
        for package in packages.missing(options.packages):
            raise ConfigError(f"{key} needs the package {package}: pip install {package}, or {_instead(key)}")
    for misfit in misfits(config, num_classes, shape):
        raise ConfigError(misfit)


def misfits(config: Config, num_classes: int, shape: tuple[int, int, int]) -> list[str]:
    """Which attacks cannot attack models of ``num_classes`` and images (C, H, W), why, and what to do."""
    reasons = {key: options.misfit(num_classes, shape, config.threat.norm) for key, options in asked(config).items()}
    return [f"{key} cannot be run on this data: {reason}; {_instead(key)}" for key, reason in reasons.items() if reason]


def _instead(key: str) -> str:
    return "set it to null" if key == "evaluate.sanity" else "leave it out"


def asked(config: Config) -> dict[str, Any]:
    """Options of every attack that an evaluation runs, by the key of params.yaml that requests it."""
    found = {f"evaluate.attacks.{name}": options for name, options in config.evaluate.attacks.items()}
    return found if config.evaluate.sanity is None else found | {"evaluate.sanity": REGISTRY.options("square")}


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
