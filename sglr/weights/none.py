"""The weights as the optimiser leaves them."""

from typing import ClassVar

from torch import nn

from sglr.weights.registry import REGISTRY, WeightOptions, WeightPolicy


@REGISTRY.register("none")
class NoneOptions(WeightOptions):
    """Nothing to set."""

    trains_saved_weights: ClassVar[bool] = True

    def build(self, model: nn.Module) -> WeightPolicy:
        return WeightPolicy()

    def added_passes(self, own: int, epochs: int) -> tuple[float, float]:
        return 0.0, 0.0

    def same_until(self, epoch: int) -> bool:
        return True
