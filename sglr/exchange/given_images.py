"""Test images that were not prepared here, from one .npz, checked before anything is attacked."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from sglr import files
from sglr.data import Prepared, Split
from sglr.data.arrays import check_images, check_labels, check_labels_of
from sglr.data.npz import read_npz


class GivenImages(Prepared):
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
        return self._split.to(device)


def read_test(path: str | Path, num_classes: int | None = None) -> GivenImages:
    """Test images from an .npz with ``x_test`` and ``y_test``; other arrays in it are not read.

    Images are uint8, or floating point in [0, 1] (excess within 1e-6 is clipped), (N, C, H, W) or, with 1 or 3
    channels, (N, H, W, C); labels whole numbers from 0 to num_classes - 1 (None: the largest label is the last class).
    Raises FileError that names the array.
    """
    path = Path(path)
    found = read_npz(path, ("x_test", "y_test"))
    x, y = found["x_test"], found["y_test"]
    check_images(x, f"{path}: x_test")
    check_labels(y, f"{path}: y_test")
    classes = num_classes if num_classes is not None else int(y.max()) + 1
    check_labels_of(x, y, str(path), "test", classes)
    labels = torch.from_numpy(np.array(y))
    split = Split(torch.from_numpy(np.array(x, order="C")), labels, labels)
    return GivenImages(split, classes, {"name": "npz", "file": path.name, "sha256": files.sha256(path)})
