"""The given labels as they are."""

from typing import Any

from torch import Tensor
from torch.nn import functional as F

from sglr.labels.registry import REGISTRY, LabelOptions, Step


class HardLabels:
    """One-hot targets of the given labels (n,)."""

    def __init__(self, given: Tensor, num_classes: int) -> None:
        self._onehot = F.one_hot(given, num_classes).float()

    def targets(self, step: Step) -> Tensor:
        return self._onehot[step.index]

    def table(self) -> Tensor:
        return self._onehot

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


@REGISTRY.register("hard")
class HardOptions(LabelOptions):
    """Nothing to set."""

    def build(self, given: Tensor, num_classes: int, epochs: int) -> HardLabels:
        return HardLabels(given, num_classes)

    def same_until(self, epoch: int) -> bool:
        return True
