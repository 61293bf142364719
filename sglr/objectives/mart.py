"""MART (Wang et al. 2020): misclassification-aware adversarial training."""

import torch
from pydantic import Field
from torch import Tensor, nn

from sglr.objectives.losses import divergence, soft_cross_entropy, weighted_mean
from sglr.objectives.registry import REGISTRY, Objective, ObjectiveOptions, Outputs


class Mart(Objective):
    """loss = CE(f(x'), t) - mean log(1.0001 - max_{c != y} s'_c) + lambda * mean KL(s || s') (1.0000001 - s_y).

    y is the hard given label throughout; the attack maximises the cross-entropy with it. Constants and the order of the
    two forwards are those of the authors' released code. It adds 1e-12 inside its logarithms, and its attack starts at
    x + 0.001 N(0, I): here logarithms are those of log-softmax, and the start is that of all methods of a comparison.
    """

    forwards_natural = True
    targets_meet = "adversarial"
    forwards_for_attack = 0

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def forward(self, model: nn.Module, x: Tensor, x_adv: Tensor) -> Outputs:
        natural = model(x)
        return Outputs(adversarial=model(x_adv), natural=natural)

    def loss(self, outputs: Outputs, targets: Tensor, y: Tensor, weights: Tensor | None = None) -> Tensor:
        assert outputs.natural is not None
        assert outputs.adversarial is not None
        s_adv = outputs.adversarial.softmax(1)
        is_given = y[:, None] == torch.arange(s_adv.shape[1], device=y.device)
        runner_up = s_adv.masked_fill(is_given, 0).amax(1)
        boosted = soft_cross_entropy(outputs.adversarial, targets) - torch.log(1.0001 - runner_up)
        s_given = outputs.natural.softmax(1).gather(1, y[:, None]).squeeze(1)
        consistency = divergence(outputs.natural, outputs.adversarial) * (1.0000001 - s_given)
        return weighted_mean(boosted, weights) + self.weight * consistency.mean()


@REGISTRY.register("mart")
class MartOptions(ObjectiveOptions):
    """``weight`` is the paper's lambda."""

    weight: float = Field(default=5.0, gt=0)

    def build(self) -> Mart:
        return Mart(self.weight)
