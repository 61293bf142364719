"""Images and labels as NumPy arrays, and the checks that every source's arrays must pass."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sglr.files import FileError, is_printable

Array = NDArray[Any]
# How far outside [0, 1] rounding leaves images: of a normalisation undone, or of one decoded elsewhere.
_ROUNDED = 1e-6


@dataclass(frozen=True)
class Arrays:
    """The data of a source.

    ``x_train``, ``x_test``: (N, C, H, W), uint8 or float32 in [0, 1]. ``y_train``, ``y_test``: (N,) int64 in
    0 .. num_classes - 1, the true labels. ``classes``: names, or None where there are none. ``given_train``: (N,)
    int64, labels to train on that come with the data and may be wrong; None: the true ones.
    """

    x_train: Array
    y_train: Array
    x_test: Array
    y_test: Array
    num_classes: int
    classes: tuple[str, ...] | None = None
    given_train: Array | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        channels, height, width = self.x_train.shape[1:]
        return channels, height, width

    def checked(self, where: str) -> "Arrays":
        """These arrays, after checking that they are what the class promises.

        Raises FileError that begins with ``where`` and names the array.
        """
        for part in ("train", "test"):
            x, y = getattr(self, f"x_{part}"), getattr(self, f"y_{part}")
            check_images(x, f"{where}: x_{part}")
            check_labels_of(x, y, where, part, self.num_classes)
        if self.given_train is not None:
            check_labels_of(self.x_train, self.given_train, where, "train", self.num_classes, kind="given")
        if self.x_train.shape[1:] != self.x_test.shape[1:]:
            raise FileError(
                f"{where}: the images of x_train are {self.x_train.shape[1:]} (channels, height, width),"
                f" those of x_test {self.x_test.shape[1:]}."
            )
        if self.x_train.dtype != self.x_test.dtype:
            raise FileError(f"{where}: x_train is {self.x_train.dtype}, x_test {self.x_test.dtype}; use one type.")
        if self.classes is not None and len(self.classes) != self.num_classes:
            raise FileError(f"{where}: {len(self.classes)} class names for {self.num_classes} classes.")
        # Control characters would reach terminals, and make SVG files that no program reads.
        if unprintable := [name for name in self.classes or () if not is_printable(name)]:
            raise FileError(f"{where}: the class name {unprintable[0]!r} holds a character that cannot be printed.")
        return self


def as_images(x: Array) -> Array:
    """Images of any usual form as (N, C, H, W), floating point ones as float32 without rounding errors outside
    [0, 1]; anything else is left for the check.

    (N, H, W, C) is recognised by its last axis: 1 or 3, where the second is neither.
    """
    if x.ndim == 4 and x.shape[3] in (1, 3) and x.shape[1] not in (1, 3):
        x = x.transpose(0, 3, 1, 2)
    if not np.issubdtype(x.dtype, np.floating):
        return x
    x = x.astype(np.float32, copy=False)
    low, high = (float(x.min()), float(x.max())) if x.size else (0.0, 0.0)
    rounded = low >= -_ROUNDED and high <= 1 + _ROUNDED and (low < 0 or high > 1)
    return x.clip(0, 1) if rounded else x


def as_labels(y: Array) -> Array:
    """Whole numbers of any type as int64; anything else is left for the check."""
    whole = np.issubdtype(y.dtype, np.integer) and (y.dtype != np.uint64 or not y.size or y.max() < 2**63)
    return y.astype(np.int64, copy=False) if whole else y


def check_images(x: Array, name: str) -> None:
    """FileError unless x is a non-empty (N, C, H, W) array of uint8 (to 255, not to 1), or of float32 in [0, 1]."""
    if x.ndim != 4:
        raise FileError(f"{name} has shape {x.shape}; images must have four axes, (N, C, H, W) or (N, H, W, C).")
    if 0 in x.shape:
        raise FileError(f"{name} is empty (shape {x.shape}).")
    if x.shape[3] in (2, 4) and x.shape[1] == x.shape[2] > x.shape[3]:
        raise FileError(
            f"{name} has shape {x.shape}: {x.shape[3]} channels must be the second axis, (N, C, H, W); of transparent"
            " images leave out the fourth."
        )
    if x.dtype == np.uint8:
        if x.max() == 1:
            raise FileError(f"{name} is uint8 with values 0 and 1, which would be nearly black: give it as float.")
        return
    if x.dtype != np.float32:
        raise FileError(f"{name} is {x.dtype}; images must be uint8 (0 to 255) or floating point (0 to 1).")
    # Two passes without a temporary array; NaN wins both.
    low, high = float(x.min()), float(x.max())
    if np.isnan(low) or np.isnan(high):
        raise FileError(f"{name} holds NaN.")
    if low < 0 or high > 1:
        raise FileError(
            f"{name} has values from {low:.7g} to {high:.7g}; floating point images must lie in [0, 1]"
            " (undo a normalisation, which belongs to the model, divide 0..255 by 255, or give uint8)."
        )


def check_labels(y: Array, name: str) -> None:
    """FileError unless y is a non-empty (N,) array of int64, none negative."""
    if y.ndim != 1:
        raise FileError(f"{name} has shape {y.shape}; labels must be one whole number per image, shape (N,).")
    if y.size == 0:
        raise FileError(f"{name} is empty.")
    if y.dtype != np.int64:
        raise FileError(f"{name} is {y.dtype}; labels must be whole numbers.")
    if y.min() < 0:
        raise FileError(f"{name} holds label {y.min()}; labels start at 0.")


def check_labels_of(x: Array, y: Array, where: str, part: str, num_classes: int, kind: str = "y") -> None:
    """FileError unless y holds one label below ``num_classes`` for each image of x; they are x_part and kind_part."""
    check_labels(y, f"{where}: {kind}_{part}")
    if len(x) != len(y):
        raise FileError(f"{where}: x_{part} has {len(x)} images, {kind}_{part} {len(y)} labels.")
    if y.max() >= num_classes:
        raise FileError(
            f"{where}: {kind}_{part} holds label {y.max()}, but there are {num_classes} classes:"
            f" 0 to {num_classes - 1} are allowed."
        )
