"""Stratified cuts: the same share of every class, the same examples whenever the seed is the same."""

import numpy as np

from sglr.config import ConfigError
from sglr.data.arrays import Array
from sglr.random import numpy_stream


def cut(y: Array, size: int, rng: np.random.Generator) -> Array:
    """Sorted indices (size,) of a random subset of labels y (N,) with the class shares of the whole.

    Each class gets its exact share rounded down; the places left go to the largest remainders (the lower class first
    when they are equal), so that no class is off by one or more. ``size`` must be at most N.
    """
    classes, counts = np.unique(y, return_counts=True)
    # In whole numbers, so that no rounding error decides.
    parts, remainders = np.divmod(counts * size, len(y))
    parts[np.argsort(-remainders, kind="stable")[: size - parts.sum()]] += 1
    chosen = [rng.permutation(np.flatnonzero(y == c))[:part] for c, part in zip(classes, parts, strict=True)]
    return np.sort(np.concatenate(chosen))


def split(y: Array, *, train_size: int | None, validation_size: int, seed: int) -> tuple[Array, Array]:
    """Sorted, disjoint indices (training, validation) into labels y (N,).

    Validation is cut first, so that it does not depend on ``train_size``; the training subset is cut from the rest, of
    which None means all. Raises ConfigError naming the key when there are too few examples, or none of a class is left
    to train on.
    """
    classes = len(np.unique(y))
    _check("validation_size", validation_size, classes)
    available = len(y) - validation_size
    if available < 1:
        raise ConfigError(
            f"data.validation_size: {validation_size} leaves nothing to train on;"
            f" the source has {len(y)} training examples"
        )
    if train_size is not None:
        _check("train_size", train_size, classes)
        if train_size > available:
            raise ConfigError(
                f"data.train_size: {train_size} training examples were requested, {available} are available"
                f" ({len(y)} less {validation_size} for validation); give a smaller number, or null for all of them"
            )
    validation = cut(y, validation_size, numpy_stream(seed, "validation split"))
    rest = np.setdiff1d(np.arange(len(y)), validation, assume_unique=True)
    if train_size is not None:
        rest = rest[cut(y[rest], train_size, numpy_stream(seed, "training subset"))]
    lost = np.setdiff1d(y, y[rest])
    if len(lost):
        key = "validation_size" if train_size is None else "train_size"
        raise ConfigError(
            f"data.{key}: with {len(rest)} of {len(y)} examples to train on, none is of class {lost[0]}, of which there"
            f" are {np.count_nonzero(y == lost[0])}; take more, or another data.split_seed"
        )
    return rest, validation


def in_fair_order(index: Array, y: Array, *, seed: int, part: str) -> Array:
    """``index`` (n,) into labels y (N,) as it is or, where these labels come class by class, in a random order.

    Of such a part the first examples, on which some attacks and analyses are run, would be of one class.
    """
    labels = y[index]
    if np.count_nonzero(np.diff(labels)) == len(np.unique(labels)) - 1:
        return numpy_stream(seed, f"order of {part}").permutation(index)
    return index


def _check(key: str, size: int, classes: int) -> None:
    if 0 < size < classes:
        raise ConfigError(
            f"data.{key}: {size} is too small for a stratified cut of {classes} classes; one of each is needed"
        )
