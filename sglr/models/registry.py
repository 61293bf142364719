"""What all models share: options, registry, and the form ``head(features(x))``."""

from collections.abc import Callable
from typing import Annotated, TypeVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sglr.config import Options, Registry
from sglr.models.normalize import Normalization, layer

REGISTRY = Registry("model")

Shape = tuple[int, int, int]
Built = TypeVar("Built", bound=nn.Module)
Width = Annotated[int, Field(ge=1, le=65536)]


class ModelOptions(Options):
    """Options of every model: ``normalization`` is null, or per-channel mean and std of the images in [0, 1]."""

    normalization: Normalization | None = None

    def build(self, num_classes: int, shape: Shape) -> "Classifier":
        """The untrained model for images of ``shape`` (C, H, W); ConfigError when the options do not fit them.

        Initial weights come from torch's global random state.
        """
        raise NotImplementedError

    def has_batch_norm(self, num_classes: int, shape: Shape) -> bool:
        """Whether the model that ``build`` makes keeps running statistics of the images it sees in train mode."""
        modules = list(without_weights(lambda: self.build(num_classes, shape)).modules())
        return any(isinstance(module, _BatchNorm) and module.track_running_stats for module in modules)


def without_weights(build: Callable[[], Built]) -> Built:
    """What ``build`` makes on the meta device, where nothing is allocated; on the CPU where it computes with values."""
    try:
        with torch.device("meta"):
            return build()
    except (RuntimeError, TypeError):  # such as ``item`` in stochastic depth, or ``numpy``: there are no values
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            return build()


class Classifier(nn.Module):
    """A model of images in [0, 1], N x C x H x W, in two parts: penultimate features and a linear head.

    Subclasses set ``head`` and define ``features``, which begins with ``self.normalize``.
    """

    head: nn.Linear

    def __init__(self, normalization: Normalization | None, channels: int) -> None:
        super().__init__()
        self.normalize = layer(normalization, channels)

    def features(self, x: Tensor) -> Tensor:
        """Penultimate activations (N, D) of images (N, C, H, W) in [0, 1]."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, num_classes)."""
        logits: Tensor = self.head(self.features(x))
        return logits
