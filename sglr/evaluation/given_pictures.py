"""Test pictures that were not prepared here, from one .npz, checked before anything is attacked."""

import hashlib
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sglr import files
from sglr.data import Prepared, Split

# float32 rounding of a normalisation undone, or of a picture decoded elsewhere.
_TOLERANCE = 1e-6


class GivenPictures(Prepared):
    """A test split that was not prepared here; it has no other split."""

    def __init__(self, split: Split, num_classes: int, source: dict[str, Any]) -> None:
        super().__init__(
            Path(),
            {
                "num_classes": num_classes,
                "shape": list(split.x.shape[1:]),
                "classes": None,
                "source": source,
                "sizes": {"test": len(split)},
            },
            {},
        )
        self._split = split

    def test(self, device: torch.device | str = "cpu") -> Split:
        """The test split on a device."""
        return Split(*(part.to(device) for part in (self._split.x, self._split.given, self._split.true)))


def read_test(path: str | Path, num_classes: int | None = None) -> GivenPictures:
    """Test pictures from an .npz with ``x_test`` and ``y_test``; other arrays in it are not read.

    Pictures are uint8, or floating point in [0, 1] (excess within 1e-6 is clipped), (N, C, H, W) or, with 1 or 3
    channels, (N, H, W, C); labels whole numbers from 0 to num_classes - 1 (None: the largest label is the last class).
    Raises FileError that names the array.
    """
    x, y = _arrays(Path(path))
    if len(x) == 0 or len(y) == 0:
        raise files.FileError(f"{path}: the test set is empty: there is nothing to evaluate on.")
    if x.ndim == 4 and x.shape[3] in (1, 3) and x.shape[1] not in (1, 3):
        x = x.transpose(0, 3, 1, 2)
    if x.ndim != 4 or 0 in x.shape:
        raise files.FileError(f"{path}: x_test has shape {x.shape}; pictures must be (N, C, H, W) or (N, H, W, C).")
    if x.dtype != np.uint8:
        x = _in_range(path, x)
    if y.ndim != 1 or not np.issubdtype(y.dtype, np.integer) or len(y) != len(x):
        raise files.FileError(
            f"{path}: y_test is {y.dtype} of shape {y.shape}; one whole number for each of {len(x)} pictures is needed."
        )
    classes = num_classes if num_classes is not None else int(y.max()) + 1
    if y.min() < 0 or y.max() >= classes:
        raise files.FileError(
            f"{path}: y_test holds labels {y.min()} to {y.max()}; {classes} classes allow 0 to {classes - 1}."
        )
    labels = torch.from_numpy(y.astype(np.int64))
    split = Split(torch.from_numpy(np.ascontiguousarray(x)), labels, labels)
    return GivenPictures(
        split,
        classes,
        {"name": "npz", "file": Path(path).name, "sha256": hashlib.sha256(Path(path).read_bytes()).hexdigest()},
    )


def _arrays(path: Path) -> tuple[np.ndarray, np.ndarray]:
    files.require_honest(path)
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise files.FileError(f"{path} holds a single array; an .npz archive with x_test and y_test is needed.")
        with archive:
            missing = [name for name in ("x_test", "y_test") if name not in archive.files]
            if missing:
                raise files.FileError(f"{path}: missing {', '.join(missing)} (it holds {', '.join(archive.files)}).")
            return archive["x_test"], archive["y_test"]
    except files.FileError:
        raise
    except (OSError, ValueError, EOFError, MemoryError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise files.FileError(f"cannot read {path}: {error}") from None


def _in_range(path: str | Path, x: np.ndarray) -> np.ndarray:
    """Floating point pictures as float32 in [0, 1]."""
    if not np.issubdtype(x.dtype, np.floating):
        raise files.FileError(
            f"{path}: x_test is {x.dtype}; pictures must be uint8 (0 to 255) or floating point (0 to 1)."
        )
    low, high = float(x.min()), float(x.max())
    if not (low >= -_TOLERANCE and high <= 1 + _TOLERANCE):
        raise files.FileError(
            f"{path}: x_test has values from {low:g} to {high:g}; floating point pictures must lie in [0, 1]"
            " (undo a normalisation and give it with --normalization, divide 0..255 by 255, or give uint8)."
        )
    return np.clip(x.astype(np.float32), 0, 1)
