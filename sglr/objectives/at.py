"""Adversarial training (Madry et al. 2018): cross-entropy on adversarial examples only."""

from typing import ClassVar

from torch import Tensor, nn

from sglr.objectives.losses import soft_cross_entropy, weighted_mean
from sglr.objectives.registry import REGISTRY, Objective, ObjectiveOptions, Outputs


class AdversarialTraining(Objective):
    """loss = CE(f(x'), t); the attack maximises CE with the hard given label."""

    targets_meet = "adversarial"
    forwards_for_attack = 0

    def forward(self, model: nn.Module, x: Tensor, x_adv: Tensor) -> Outputs:
        return Outputs(adversarial=model(x_adv))

    def loss(self, outputs: Outputs, targets: Tensor, y: Tensor, weights: Tensor | None = None) -> Tensor:
        return weighted_mean(soft_cross_entropy(outputs.main, targets), weights)


@REGISTRY.register("at")
class AtOptions(ObjectiveOptions):
    """Nothing to set."""

    title: ClassVar[str] = "adversarial training"

    def build(self) -> AdversarialTraining:
        return AdversarialTraining()

    def same_until(self, epoch: int) -> bool:
        return True
