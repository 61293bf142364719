"""Wide ResNet (Zagoruyko & Komodakis 2016, arXiv 1605.07146) in the form of the TRADES code, without dropout.

With ten classes WRN-28-10 has 36,479,194 parameters and WRN-34-10 has 46,160,474. As in the TRADES code, convolutions
start from N(0, 2 / (9 * outputs)) (2 / outputs for 1x1) and the head's bias from 0; the rest is torch's default. That
code also declares a second copy of the first stage that it never uses; it is left out here.
"""

import math
from collections.abc import Callable
from typing import Annotated, Literal, Self

import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from sglr.models.registry import REGISTRY, Classifier, ModelOptions, Shape


class WideBlock(nn.Module):
    """Batch norm, ReLU, 3x3 convolution, twice; the 1x1 shortcut, where channels change, sees the activated input."""

    def __init__(self, inputs: int, outputs: int, stride: int, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.activation = activation
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.shortcut: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out = self.activation(self.bn1(x))
        around: Tensor = x if self.shortcut is None else self.shortcut(out)
        return around + self.conv2(self.activation(self.bn2(self.conv1(out))))


class WideResNet(Classifier):
    """Stem of 16 channels, three stages of 16, 32 and 64 times the width, batch norm, ReLU, global pool, head."""

    def __init__(self, options: "WideResNetOptions", num_classes: int, channels: int) -> None:
        super().__init__(options.normalization, channels)
        blocks, width = (options.depth - 4) // 6, options.width
        self.activation = getattr(F, options.activation)
        self.conv1 = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.block1 = _stage(16, 16 * width, blocks, 1, self.activation)
        self.block2 = _stage(16 * width, 32 * width, blocks, 2, self.activation)
        self.block3 = _stage(32 * width, 64 * width, blocks, 2, self.activation)
        self.bn1 = nn.BatchNorm2d(64 * width)
        self.head = nn.Linear(64 * width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0, math.sqrt(2 / (math.prod(module.kernel_size) * module.out_channels)))
        nn.init.zeros_(self.head.bias)

    def features(self, x: Tensor) -> Tensor:
        x = self.block3(self.block2(self.block1(self.conv1(self.normalize(x)))))
        return F.adaptive_avg_pool2d(self.activation(self.bn1(x)), 1).flatten(1)


def _stage(
    inputs: int, outputs: int, blocks: int, stride: int, activation: Callable[[Tensor], Tensor]
) -> nn.Sequential:
    first = WideBlock(inputs, outputs, stride, activation)
    return nn.Sequential(first, *(WideBlock(outputs, outputs, 1, activation) for _ in range(blocks - 1)))


@REGISTRY.register("wrn")
class WideResNetOptions(ModelOptions):
    """Depth (6 n + 4: 10, 16, 22, 28, 34, ...) and widening factor. ``activation``: relu, or silu as in smooth
    adversarial training (Xie et al. 2020)."""

    depth: Annotated[int, Field(ge=10, le=1000)] = 34
    width: Annotated[int, Field(ge=1, le=64)] = 10
    activation: Literal["relu", "silu"] = "relu"

    @model_validator(mode="after")
    def _depth_fits(self) -> Self:
        if (self.depth - 4) % 6:
            raise ValueError(f"depth must be 6 n + 4 (10, 16, 22, 28, 34, ...), found {self.depth}")
        return self

    def build(self, num_classes: int, shape: Shape) -> WideResNet:
        return WideResNet(self, num_classes, shape[0])
