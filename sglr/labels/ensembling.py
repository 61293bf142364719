"""Temporal ensembling (Dong et al. 2022, "Exploring memorization in adversarial training")."""

import math
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from sglr.labels.registry import REGISTRY, Batch, LabelOptions, LabelPolicy, NaturalForward, Penalty, restore
from sglr.objectives import ObjectiveOptions


class TemporalEnsembling(LabelPolicy):
    """Hard labels in the cross-entropy, and a squared distance to averaged natural predictions beside it.

    p starts at 0; from ``start_epoch`` on, before the attack, p <- momentum p + (1 - momentum) softmax(f(x)) in eval
    mode; the penalty w * mean over classes of (s' - p / sum p)^2 is part of the loss and of what the attack maximises.
    On TRADES the loss takes it of s instead of s', as the authors' released code does; on MART it is a reconstruction.
    """

    def __init__(self, options: "EnsemblingOptions", given: Tensor, num_classes: int) -> None:
        self._options = options
        self._hard = F.one_hot(given, num_classes).float()
        self._p = torch.zeros_like(self._hard)

    def before_attack(self, batch: Batch) -> None:
        if batch.epoch >= self._options.start_epoch:
            momentum = self._options.momentum
            update = momentum * self._p[batch.index] + (1 - momentum) * batch.natural("eval").softmax(1)
            self._p[batch.index] = update.to(self._p.dtype)

    def penalty(self, epoch: int, index: Tensor) -> Penalty | None:
        weight = self.weight(epoch)
        if weight == 0:
            return None
        target = self._normalised(index)
        return lambda logits: weight * (logits.softmax(1) - target).square().mean(1)

    def weight(self, epoch: int) -> float:
        """w of an epoch: 0 before the start, then weight * exp(-5 (1 - u)^2), u rising to 1 over ``ramp_epochs``."""
        options = self._options
        if epoch < options.start_epoch:
            return 0.0
        u = min((epoch - options.start_epoch) / options.ramp_epochs, 1.0)
        return options.weight * math.exp(-5 * (1 - u) ** 2)

    def targets(self, epoch: int, index: Tensor) -> Tensor:
        return self._hard[index]

    def refined(self, epoch: int, index: Tensor) -> Tensor:
        # Nothing is averaged before the start.
        seen = self._p[index].sum(1, keepdim=True) > 0
        return torch.where(seen, self._normalised(index), self._hard[index])

    def _normalised(self, index: Tensor) -> Tensor:
        p = self._p[index]
        return p / p.sum(1, keepdim=True).clamp_min(torch.finfo(p.dtype).tiny)

    def state_dict(self) -> dict[str, Any]:
        return {"p": self._p}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        restore(self._p, state.get("p"))


@REGISTRY.register("ensembling")
class EnsemblingOptions(LabelOptions):
    """Defaults are the paper's, for 200 epochs."""

    title: ClassVar[str] = "temporal ensembling"
    start_epoch: int = Field(default=90, ge=1)
    ramp_epochs: int = Field(default=60, ge=1)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight: float = Field(default=300.0, gt=0)

    def build(self, given: Tensor, num_classes: int, epochs: int) -> TemporalEnsembling:
        return TemporalEnsembling(self, given, num_classes)

    def check_objective(self, objective: ObjectiveOptions) -> None:
        if not objective.build().attacks:
            raise ValueError(f"temporal ensembling regularises adversarial predictions; {objective.name!r} makes none")

    def natural_forward(self) -> NaturalForward:
        return NaturalForward(self.start_epoch, "eval", before_attack=True)

    def same_until(self, epoch: int) -> bool:
        return self.start_epoch > epoch
