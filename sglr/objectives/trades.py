"""TRADES (Zhang et al. 2019): natural cross-entropy, and a KL term between natural and adversarial predictions."""

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from sglr.attacks.losses import Loss
from sglr.objectives.losses import divergence, soft_cross_entropy, weighted_mean
from sglr.objectives.registry import REGISTRY, Objective, ObjectiveOptions, Outputs


class Trades(Objective):
    """loss = CE(f(x), t) + beta * mean KL(s || s'), gradient through both; the attack maximises the KL term.

    The random start is that of all methods of a comparison (``train.attack.random_start``), not the original's
    x + 0.001 N(0, I). x is forwarded once, before x'; the authors' released code forwards it a second time after x',
    which in train mode gives the same logits and one more update of batch norm's running statistics.
    """

    forwards_natural = True
    targets_meet = "natural"
    forwards_for_attack = 1

    def __init__(self, beta: float) -> None:
        self.beta = beta

    def attack_loss(self, model: nn.Module, x: Tensor) -> Loss:
        with torch.no_grad():
            natural = model(x)
        # beta moves the attack only where a label policy adds a penalty.
        return lambda logits, _: self.beta * divergence(natural, logits)

    def forward(self, model: nn.Module, x: Tensor, x_adv: Tensor) -> Outputs:
        natural = model(x)
        return Outputs(adversarial=model(x_adv), natural=natural)

    def loss(self, outputs: Outputs, targets: Tensor, y: Tensor, weights: Tensor | None = None) -> Tensor:
        assert outputs.natural is not None
        assert outputs.adversarial is not None
        natural = weighted_mean(soft_cross_entropy(outputs.natural, targets), weights)
        return natural + self.beta * divergence(outputs.natural, outputs.adversarial).mean()

    def penalised(self, outputs: Outputs) -> Tensor:
        # As in the released code of temporal ensembling, whose attack takes the penalty on x' all the same.
        assert outputs.natural is not None
        return outputs.natural


@REGISTRY.register("trades")
class TradesOptions(ObjectiveOptions):
    """``beta`` is the paper's 1/lambda."""

    needs_random_start: ClassVar[bool] = True
    beta: float = Field(default=6.0, gt=0)

    def build(self) -> Trades:
        return Trades(self.beta)
