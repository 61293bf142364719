"""A small convolutional network for 8x8 digits and quick studies on 32x32 images (this project's own design)."""

import torch.nn.functional as F
from torch import Tensor, nn

from sglr.models.registry import REGISTRY, Classifier, ModelOptions, Shape, Width


class SmallCNN(Classifier):
    """Two 3x3 convolutions (the second of stride 2), a hidden layer whose ReLU outputs are the features, a head."""

    def __init__(self, options: "SmallCNNOptions", num_classes: int, shape: Shape) -> None:
        channels, height, width = shape
        super().__init__(options.normalization, channels)
        first, second = options.channels
        bias = not options.batch_norm
        self.conv1 = nn.Conv2d(channels, first, 3, padding=1, bias=bias)
        self.bn1 = nn.BatchNorm2d(first) if options.batch_norm else nn.Identity()
        self.conv2 = nn.Conv2d(first, second, 3, stride=2, padding=1, bias=bias)
        self.bn2 = nn.BatchNorm2d(second) if options.batch_norm else nn.Identity()
        self.hidden = nn.Linear(second * ((height + 1) // 2) * ((width + 1) // 2), options.hidden)
        self.head = nn.Linear(options.hidden, num_classes)

    def features(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(self.normalize(x))))
        x = F.relu(self.bn2(self.conv2(x)))
        return F.relu(self.hidden(x.flatten(1)))


@REGISTRY.register("small_cnn")
class SmallCNNOptions(ModelOptions):
    """Channels of the two convolutions, units of the hidden layer, batch normalisation or not."""

    channels: tuple[Width, Width] = (16, 32)
    hidden: Width = 128
    batch_norm: bool = True

    def build(self, num_classes: int, shape: Shape) -> SmallCNN:
        return SmallCNN(self, num_classes, shape)
