"""Images of one split that are in the training split too: a network cannot be tested on what it was trained on."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from sglr.data.arrays import Array


def repeated(x: Array, train: Array, validation: Array, x_test: Array) -> dict[str, int]:
    """How many validation and test images equal a training image byte for byte; both splits index ``x``."""
    known = {_digest(x[i]) for i in train}
    return {
        "validation": sum(_digest(x[i]) in known for i in validation),
        "test": sum(_digest(image) in known for image in x_test),
    }


def seen_before(meta: Mapping[str, Any]) -> list[str]:
    """Sentences on prepared data (its ``meta.json``) whose validation or test images were trained on."""
    return [
        f"{number:,} of the {meta['sizes'][part]:,} {part} images are training images too, byte for byte:"
        " accuracy on them is not accuracy on new images."
        for part, number in meta.get("repeated", {}).items()
        if number
    ]


def _digest(image: Array) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()
