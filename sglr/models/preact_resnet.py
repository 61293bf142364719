"""PreActResNet-18 in CIFAR form (He et al. 2016, arXiv 1603.05027), as Rice et al. 2020 train it.

Two forms are in use. The one of Rice et al. followed here ends in batch norm and ReLU before the pool: 11,172,170
parameters for ten classes. The older CIFAR code without them has 11,171,146. Initialisation is torch's default in both.
"""

from collections.abc import Callable
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from sglr.models.registry import REGISTRY, Classifier, ModelOptions, Shape


class PreActBlock(nn.Module):
    """Batch norm, ReLU, 3x3 convolution, twice; the 1x1 shortcut, where the shape changes, sees the activated input."""

    def __init__(self, inputs: int, outputs: int, stride: int, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.activation = activation
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.shortcut: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        out = self.activation(self.bn1(x))
        around: Tensor = x if self.shortcut is None else self.shortcut(out)
        out = self.conv1(out)
        return around + self.conv2(self.activation(self.bn2(out)))


class PreActResNet(Classifier):
    """Stem, four stages of two blocks, batch norm and ReLU, global average pool, head. Any image size."""

    def __init__(self, options: "PreActResNetOptions", num_classes: int, channels: int) -> None:
        super().__init__(options.normalization, channels)
        self.activation = getattr(F, options.activation)
        self.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        self.layer1 = _stage(64, 64, 1, self.activation)
        self.layer2 = _stage(64, 128, 2, self.activation)
        self.layer3 = _stage(128, 256, 2, self.activation)
        self.layer4 = _stage(256, 512, 2, self.activation)
        self.bn = nn.BatchNorm2d(512)
        self.head = nn.Linear(512, num_classes)

    def features(self, x: Tensor) -> Tensor:
        x = self.conv1(self.normalize(x))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return F.adaptive_avg_pool2d(self.activation(self.bn(x)), 1).flatten(1)


def _stage(inputs: int, outputs: int, stride: int, activation: Callable[[Tensor], Tensor]) -> nn.Sequential:
    return nn.Sequential(PreActBlock(inputs, outputs, stride, activation), PreActBlock(outputs, outputs, 1, activation))


@REGISTRY.register("preact_resnet18")
class PreActResNetOptions(ModelOptions):
    """``activation``: relu, or silu as in smooth adversarial training (Xie et al. 2020)."""

    activation: Literal["relu", "silu"] = "relu"

    def build(self, num_classes: int, shape: Shape) -> PreActResNet:
        return PreActResNet(self, num_classes, shape[0])
