"""Whether classes, form and order of the test examples suit what is asked of them."""

import torch
from torch import Tensor

from sglr.attacks import REGISTRY
from sglr.config import Config, ConfigError

# Of so many test sets in random order one is called skewed.
_ONE_IN = 1_000_000


def require_attackable(config: Config, num_classes: int, shape: tuple[int, int, int]) -> None:
    """Raise ConfigError for an attack that cannot attack models of so many classes and pictures (C, H, W)."""
    asked = {f"attacks.{name}": options for name, options in config.evaluate.attacks.items()}
    if config.evaluate.sanity is not None:
        asked["sanity"] = REGISTRY.options("square")
    for key, options in asked.items():
        reason = options.misfit(num_classes, shape, config.threat.norm)
        if reason is not None:
            raise ConfigError(f"evaluate.{key} cannot be run on this data: {reason}")


def skewed(labels: Tensor, sizes: dict[str, int]) -> list[str]:
    """Flags for attacks that see the first so many test examples, where these are no fair sample of the classes.

    labels: of the whole test split (n,), in its order. Pearson's chi-squared test of the first ones' class counts
    against the shares in the whole.
    """
    found, counts = [], torch.bincount(labels).double()
    shares = counts[counts > 0] / len(labels)
    for n in sorted(set(sizes.values()) - {len(labels)}):
        first = torch.bincount(labels[:n], minlength=len(counts)).double()[counts > 0]
        statistic = ((first - n * shares) ** 2 / (n * shares)).sum()
        half = torch.full_like(statistic, (len(shares) - 1) / 2)
        if float(torch.special.gammaincc(half, statistic / 2)) < 1 / _ONE_IN:
            names = ", ".join(name for name, size in sizes.items() if size == n)
            found.append(
                f"{names}: the first {n} test examples are no fair sample of the classes (one class makes up"
                f" {float(first.max()) / n:.0%} of them): put the test set in random order"
            )
    return found
