"""Adversarial training (Madry et al. 2018): cross-entropy on adversarial examples only."""

from torch import Tensor, nn

from sglr.objectives.registry import REGISTRY, ObjectiveOptions, Outputs, soft_cross_entropy


class AdversarialTraining:
    """loss = CE(f(x'), t); the attack maximises CE with the hard given label (METHOD section 1)."""

    attacks = True

    def forward(self, model: nn.Module, x: Tensor, x_adv: Tensor) -> Outputs:
        return Outputs(adversarial=model(x_adv))

    def loss(self, outputs: Outputs, targets: Tensor, y: Tensor) -> Tensor:
        return soft_cross_entropy(outputs.main, targets).mean()


@REGISTRY.register("at")
class AtOptions(ObjectiveOptions):
    """Nothing to set."""

    def build(self) -> AdversarialTraining:
        return AdversarialTraining()

    def same_until(self, epoch: int) -> bool:
        return True
