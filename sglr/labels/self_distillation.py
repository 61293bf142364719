"""Annealed self-distillation (Wu et al. 2024, "Annealing self-distillation rectification ...", ICLR)."""

import math
from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from sglr.labels.registry import REGISTRY, Batch, LabelOptions, LabelPolicy, NaturalForward, restore


class SelfDistillation(LabelPolicy):
    """Targets between the given labels and what the average of the weights predicts of the natural images.

    Before each attack, with the saved weights' softmax s = softmax(f(x) / T) in eval mode: t = m s + (1 - m) onehot(y),
    where m = mu - (max_c s_c - s_y), clipped to [0, 1], so that the given label stays the largest. T and mu go from
    their first values to their last ones on half a cosine over the steps. The attack leads away from t.
    """

    def __init__(self, options: "SelfDistillationOptions", given: Tensor, num_classes: int) -> None:
        self._options = options
        self._hard = F.one_hot(given, num_classes).float()
        self._p = self._hard.clone()

    def before_attack(self, batch: Batch) -> None:
        options, onehot = self._options, self._hard[batch.index]
        temperature = annealed(options.first_temperature, options.last_temperature, batch.progress)
        share = annealed(options.first_share, options.last_share, batch.progress)
        s = (batch.averaged() / temperature).softmax(1)
        given = (s * onehot).sum(1, keepdim=True)
        shares = (share - (s.amax(1, keepdim=True) - given)).clamp(0, 1)
        self._p[batch.index] = (shares * s + (1 - shares) * onehot).to(self._p.dtype)

    def attack_targets(self, epoch: int, index: Tensor) -> Tensor:
        return self._p[index]

    def targets(self, epoch: int, index: Tensor) -> Tensor:
        return self._p[index]

    def state_dict(self) -> dict[str, Any]:
        return {"p": self._p}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        restore(self._p, state.get("p"))


def annealed(first: float, last: float, progress: float) -> float:
    """From ``first`` to ``last`` on half a cosine, for ``progress`` from 0 to 1."""
    return last + (first - last) * (1 + math.cos(math.pi * progress)) / 2


@REGISTRY.register("self_distillation")
class SelfDistillationOptions(LabelOptions):
    """Defaults are those of the authors' code for CIFAR-10; CIFAR-100: temperatures 1.5 and 1.

    The teacher is the average that the method's weight policy keeps, such as ``ema``; without one, the network itself.
    """

    title: ClassVar[str] = "annealed self-distillation"
    first_temperature: float = Field(default=2.5, gt=0)
    last_temperature: float = Field(default=2.0, gt=0)
    first_share: float = Field(default=0.7, ge=0, le=1)
    last_share: float = Field(default=0.95, ge=0, le=1)

    def build(self, given: Tensor, num_classes: int, epochs: int) -> SelfDistillation:
        return SelfDistillation(self, given, num_classes)

    def natural_forward(self) -> NaturalForward:
        return NaturalForward(1, "eval", before_attack=True)
