"""Normalisation as the model's first layer, so that attacks work on images in [0, 1] and eps means what it says."""

from typing import Annotated, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from sglr.config import ConfigError, Section
from sglr.config.fields import PositiveFloat


class Normalization(Section):
    """Per-channel mean and standard deviation of the images, in [0, 1] units."""

    mean: Annotated[tuple[float, ...], Field(min_length=1)]
    std: tuple[PositiveFloat, ...]

    @model_validator(mode="after")
    def _same_length(self) -> Self:
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean has {len(self.mean)} values, std {len(self.std)}: one of each per channel")
        if max(self.mean) > 1:
            raise ValueError(f"a mean of {max(self.mean):g}: images are in [0, 1], divide by 255")
        return self


class Normalize(nn.Module):
    """(x - mean) / std per channel, for x (N, C, H, W)."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        # Saved with the weights: a weights file alone then gives the right logits.
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


def layer(normalization: Normalization | None, channels: int) -> nn.Module:
    """The first layer of a model for images with ``channels`` channels; identity when there is nothing to do.

    Raises ConfigError when there is not one mean and one std for each channel.
    """
    if normalization is None:
        return nn.Identity()
    if len(normalization.mean) != channels:
        raise ConfigError(
            f"model.normalization has {len(normalization.mean)} values for mean and std, but the images have"
            f" {channels} channel{'s' if channels > 1 else ''}: give one value for each."
        )
    return Normalize(normalization.mean, normalization.std)
