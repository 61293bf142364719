"""Augmentations beyond the crop and the reflection: what else is done to training images before the attack."""

from sglr.augmentations.registry import REGISTRY, Augmentation, AugmentationOptions
from sglr.config import discover

discover(__name__, __path__)

__all__ = ["REGISTRY", "Augmentation", "AugmentationOptions"]
