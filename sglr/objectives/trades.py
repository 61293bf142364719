"""TRADES (Zhang et al. 2019): natural cross-entropy plus a KL term that holds natural and adversarial predictions together."""

import torch
from pydantic import Field
from torch import Tensor, nn

from sglr.attacks.pgd import Loss
from sglr.objectives.registry import (
    REGISTRY,
    Objective,
    ObjectiveOptions,
    Outputs,
    divergence,
    soft_cross_entropy,
    weighted_mean,
)


class Trades(Objective):
    """loss = CE(f(x), t) + beta * mean KL(s || s'), gradient through both; the attack maximises the KL (METHOD 2, 4).

    The random start is that of all methods of a comparison (``train.attack.random_start``), not the original's
    x + 0.001 N(0, I).
    """

    def __init__(self, beta: float) -> None:
        self.beta = beta

    def attack_loss(self, model: nn.Module, x: Tensor) -> Loss:
        with torch.no_grad():
            natural = model(x)
        return lambda logits, _: divergence(natural, logits)

    def forward(self, model: nn.Module, x: Tensor, x_adv: Tensor) -> Outputs:
        natural = model(x)
        return Outputs(adversarial=model(x_adv), natural=natural)

    def loss(self, outputs: Outputs, targets: Tensor, y: Tensor, weights: Tensor | None = None) -> Tensor:
        assert outputs.natural is not None
        assert outputs.adversarial is not None
        natural = weighted_mean(soft_cross_entropy(outputs.natural, targets), weights)
        return natural + self.beta * divergence(outputs.natural, outputs.adversarial).mean()


@REGISTRY.register("trades")
class TradesOptions(ObjectiveOptions):
    """``beta`` is the paper's 1/lambda."""

    beta: float = Field(default=6.0, gt=0)

    def build(self) -> Trades:
        return Trades(self.beta)
