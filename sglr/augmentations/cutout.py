"""Cutout (DeVries and Taylor 2017): a square of zeros in every image."""

import torch
from pydantic import Field
from torch import Tensor

from sglr.augmentations.registry import REGISTRY, Augmentation, AugmentationOptions


def cut(x: Tensor, centres: Tensor, *, size: int) -> Tensor:
    """Images x (N, C, H, W), each with zeros, in all channels, in a square of ``size`` pixels a side around its centre.

    centres: (N, 2) int64, row and column, on the device of x. The square is clipped at the borders, and begins
    size // 2 pixels before the centre (docs/methods.md says what the released code does).
    """
    first = centres - size // 2
    inside = []
    for length, start in zip(x.shape[2:], first.split(1, dim=1), strict=True):
        place = torch.arange(length, device=x.device)
        inside.append((place >= start) & (place < start + size))
    rows, columns = inside
    return x.masked_fill(rows[:, None, :, None] & columns[:, None, None, :], 0)


@REGISTRY.register("cutout")
class CutoutOptions(AugmentationOptions):
    """A square of zeros in every image, clipped at the borders; each pixel is equally likely to be its centre."""

    size: int = Field(ge=1)

    def build(self, shape: tuple[int, int, int]) -> Augmentation:
        def augmentation(x: Tensor, generator: torch.Generator) -> Tensor:
            n, _, *sides = x.shape
            drawn = [torch.randint(0, side, (n, 1), generator=generator, device=x.device) for side in sides]
            return cut(x, torch.cat(drawn, dim=1), size=self.size)

        return augmentation

    def misfit(self, shape: tuple[int, int, int]) -> str | None:
        longer = max(shape[1:])
        if self.size < longer:
            return None
        return f"size {self.size} can leave nothing of an image; it must be less than {longer}, the longer side"
