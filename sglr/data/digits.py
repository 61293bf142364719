"""Source ``digits``: 1,797 handwritten digits of 8x8 grey pixels that come with scikit-learn, nothing to download."""

from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from sglr.data.arrays import Arrays
from sglr.data.registry import REGISTRY, SourceOptions
from sglr.data.split import cut
from sglr.random import numpy_stream

# The data set has no official test part. This constant fixes one: every experiment is tested on the same digits.
TEST_SEED = 20240313


@REGISTRY.register("digits")
class DigitsOptions(SourceOptions):
    """How many of the 1,797 digits are for testing (stratified, the same ones always); the rest is for training."""

    packages: ClassVar[tuple[str, ...]] = ("scikit-learn",)
    test_size: Annotated[int, Field(ge=10, le=1787)] = 800

    def training_examples(self) -> int:
        return 1797 - self.test_size

    def test_examples(self) -> int:
        return self.test_size

    def classes_and_shape(self) -> tuple[int, tuple[int, int, int]]:
        return 10, (1, 8, 8)

    def read(self, root: Path | None = None) -> Arrays:
        """Float32 images (N, 1, 8, 8): the data set's sixteen grey levels divided by 16."""
        from sklearn.datasets import load_digits

        digits = load_digits()
        x = (digits.images[:, None] / 16).astype(np.float32)
        y = digits.target.astype(np.int64)
        test = cut(y, self.test_size, numpy_stream(TEST_SEED, "digits test split"))
        train = np.setdiff1d(np.arange(len(y)), test, assume_unique=True)
        names = tuple(str(digit) for digit in range(10))
        return Arrays(x[train], y[train], x[test], y[test], num_classes=10, classes=names).checked("digits")
