"""Data: sources by name, splits and label noise written once, batches from arrays resident on the device."""

from sglr.config import discover
from sglr.data.arrays import Arrays
from sglr.data.batches import augment, batches, order
from sglr.data.prepared import Images, Prepared, Split, open_folder, prepare
from sglr.data.registry import REGISTRY, SourceOptions
from sglr.data.repeats import seen_before

discover(__name__, __path__)

__all__ = [
    "REGISTRY",
    "Arrays",
    "Images",
    "Prepared",
    "SourceOptions",
    "Split",
    "augment",
    "batches",
    "open_folder",
    "order",
    "prepare",
    "seen_before",
]
