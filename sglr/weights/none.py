"""The weights as the optimiser leaves them."""

from typing import Any

from torch import nn

from sglr.weights.registry import REGISTRY, WeightOptions


class LiveWeights:
    """Nothing is averaged or perturbed."""

    def after_step(self, model: nn.Module, epoch: int) -> None:
        pass

    def evaluated(self, model: nn.Module) -> nn.Module:
        return model

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


@REGISTRY.register("none")
class NoneOptions(WeightOptions):
    """Nothing to set."""

    def build(self, model: nn.Module) -> LiveWeights:
        return LiveWeights()

    def same_until(self, epoch: int) -> bool:
        return True
