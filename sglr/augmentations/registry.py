"""The interface of an augmentation."""

from collections.abc import Callable

import torch
from torch import Tensor

from sglr.config import Options, Registry

REGISTRY = Registry("augmentation")

Augmentation = Callable[[Tensor, torch.Generator], Tensor]
"""(images (N, C, H, W) float32 in [0, 1], generator on their device) -> images of the same shape, type, device, range.

Each image is changed on its own, whatever the others are, and the input stays as it is. Random numbers come from the
generator only; nothing in it waits for the device, or remembers earlier calls. It is called under ``torch.no_grad``,
without autocast."""


class AugmentationOptions(Options):
    """Base of augmentation options."""

    def build(self, shape: tuple[int, int, int]) -> Augmentation:
        """The augmentation of images of ``shape`` (C, H, W)."""
        raise NotImplementedError

    def misfit(self, shape: tuple[int, int, int]) -> str | None:
        """Why images of ``shape`` (C, H, W) cannot be augmented so; None where they can."""
        return None
