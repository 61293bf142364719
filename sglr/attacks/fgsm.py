"""Fast gradient sign method (Goodfellow et al. 2015): one step of size eps, no random start."""

from torch import Tensor, nn

from sglr.attacks.inputs import outside_inference_mode, require_inputs
from sglr.attacks.losses import criterion
from sglr.attacks.pgd import input_gradient
from sglr.attacks.registry import REGISTRY, Attack, AttackOptions
from sglr.threat import Threat


@outside_inference_mode
def fgsm(model: nn.Module, x: Tensor, y: Tensor, *, threat: Threat) -> Tensor:
    """One steepest step of length eps on the cross-entropy. Shapes, ranges and ValueError as in ``pgd``."""
    require_inputs(x, y, threat, "ce")
    x = x.detach()
    return threat.project(x + threat.step(input_gradient(model, x, y, criterion("ce")), threat.eps), x)


@REGISTRY.register("fgsm")
class FgsmOptions(AttackOptions):
    """FGSM has no options."""

    def passes(self, num_classes: int) -> tuple[float, float]:
        return 1, 1

    def build(self, threat: Threat) -> Attack:
        def attack(model: nn.Module, x: Tensor, y: Tensor, *, seed: int) -> Tensor:
            return fgsm(model, x, y, threat=threat)

        return attack
