"""Whether classes and order of the test examples suit what is asked of them."""

import torch
from torch import Tensor

from sglr.config import Config, ConfigError

# Of so many test sets in random order one is called skewed.
_ONE_IN = 1_000_000


def require_classes(config: Config, num_classes: int) -> None:
    """Raise ConfigError for attacks of ``evaluate.attacks`` whose loss is not defined for so few classes."""
    for name, options in config.evaluate.attacks.items():
        if num_classes < options.fewest_classes:
            raise ConfigError(
                f"evaluate.attacks.{name} needs at least {options.fewest_classes} classes, the data has {num_classes}:"
                " take it out, or give it another loss"
            )


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
