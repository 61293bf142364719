"""Label smoothing (Szegedy et al. 2016)."""

from typing import ClassVar

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from sglr.labels.hard import FixedLabels
from sglr.labels.registry import NEVER, REGISTRY, LabelOptions, NaturalForward


@REGISTRY.register("smoothing")
class SmoothingOptions(LabelOptions):
    """t = (1 - s) onehot(y) + s / C."""

    title: ClassVar[str] = "label smoothing"
    smoothing: float = Field(default=0.1, gt=0, lt=1)

    def build(self, given: Tensor, num_classes: int, epochs: int) -> FixedLabels:
        onehot = F.one_hot(given, num_classes).float()
        return FixedLabels((1 - self.smoothing) * onehot + self.smoothing / num_classes)

    def natural_forward(self) -> NaturalForward:
        return NEVER
