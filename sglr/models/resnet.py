"""ResNet-18 and ResNet-34 in CIFAR form: 3x3 stem of stride 1, no max-pool (He et al. 2016, arXiv 1512.03385).

The architecture, module names (but for ``head``) and torch's default initialisation are those of the widely used
CIFAR ResNets that the TRADES and AWP code trains, and by its description that of SGLR: 11,173,962 and 21,282,122
parameters for ten classes.
"""

from collections.abc import Callable
from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from sglr.models.registry import REGISTRY, Classifier, ModelOptions, Shape


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norm and a shortcut around them; a 1x1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.activation = activation
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = self.activation(self.bn1(self.conv1(x)))
        return self.activation(self.bn2(self.conv2(out)) + self.shortcut(x))


class ResNet(Classifier):
    """Stem, four stages of 64, 128, 256 and 512 channels, global average pool, head. Any image size."""

    def __init__(self, options: "ResNetOptions", blocks: tuple[int, ...], num_classes: int, channels: int) -> None:
        super().__init__(options.normalization, channels)
        self.activation = getattr(F, options.activation)
        self.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = _stage(64, 64, blocks[0], 1, self.activation)
        self.layer2 = _stage(64, 128, blocks[1], 2, self.activation)
        self.layer3 = _stage(128, 256, blocks[2], 2, self.activation)
        self.layer4 = _stage(256, 512, blocks[3], 2, self.activation)
        self.head = nn.Linear(512, num_classes)

    def features(self, x: Tensor) -> Tensor:
        x = self.activation(self.bn1(self.conv1(self.normalize(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return F.adaptive_avg_pool2d(x, 1).flatten(1)


def _stage(
    inputs: int, outputs: int, blocks: int, stride: int, activation: Callable[[Tensor], Tensor]
) -> nn.Sequential:
    first = BasicBlock(inputs, outputs, stride, activation)
    return nn.Sequential(first, *(BasicBlock(outputs, outputs, 1, activation) for _ in range(blocks - 1)))


@REGISTRY.register("resnet18", "resnet34")
class ResNetOptions(ModelOptions):
    """The depth is in the name. ``activation``: relu, or silu as in smooth adversarial training (Xie et al. 2020)."""

    activation: Literal["relu", "silu"] = "relu"
    blocks: ClassVar[dict[str, tuple[int, ...]]] = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3)}

    def build(self, num_classes: int, shape: Shape) -> ResNet:
        return ResNet(self, self.blocks[self.name], num_classes, shape[0])
