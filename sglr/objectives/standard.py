"""Standard training: cross-entropy on natural images, no attack."""

from typing import ClassVar

from torch import Tensor, nn

from sglr.objectives.losses import soft_cross_entropy, weighted_mean
from sglr.objectives.registry import REGISTRY, Objective, ObjectiveOptions, Outputs


class Standard(Objective):
    """loss = CE(f(x), t)."""

    attacks = False
    forwards_natural = True
    targets_meet = "natural"
    forwards_for_attack = 0

    def forward(self, model: nn.Module, x: Tensor, x_adv: Tensor) -> Outputs:
        return Outputs(natural=model(x))

    def loss(self, outputs: Outputs, targets: Tensor, y: Tensor, weights: Tensor | None = None) -> Tensor:
        return weighted_mean(soft_cross_entropy(outputs.main, targets), weights)


@REGISTRY.register("standard")
class StandardOptions(ObjectiveOptions):
    """Nothing to set."""

    title: ClassVar[str] = "natural training"

    def build(self) -> Standard:
        return Standard()
