"""Averaged weights: exponential moving average and stochastic weight averaging (torch.optim.swa_utils)."""

from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, update_bn

from sglr.weights.registry import REGISTRY, WeightOptions, WeightPolicy

Buffers = Literal["average", "copy", "recompute"]
Average = Callable[[Tensor, Tensor, Tensor | int], Tensor]


class AveragedWeights(WeightPolicy):
    """From ``start_epoch`` on, an average beside the live model; it is what is validated, selected and saved.

    Before the start the live model is. The average shares no storage with it. Batch norm's statistics are averaged like
    weights (``average``), those of the live model (``copy``), or measured anew at the end of each epoch on the natural
    training pictures (``recompute``, Izmailov et al. 2018).
    """

    def __init__(
        self, model: nn.Module, start_epoch: int, buffers: Buffers, average: Average, *, every_epoch: bool
    ) -> None:
        self._start_epoch, self._every_epoch, self._buffers = start_epoch, every_epoch, buffers
        # The counter beside the weights, so that it is not copied to their device for each of them.
        device = next(model.parameters()).device
        self._average = AveragedModel(model, device, avg_fn=average, use_buffers=buffers == "average")

    def after_step(self, model: nn.Module, epoch: int) -> None:
        if epoch >= self._start_epoch and not self._every_epoch:
            self._average.update_parameters(model)

    def after_epoch(self, model: nn.Module, epoch: int, pictures: Callable[[], Iterable[Tensor]]) -> None:
        if epoch < self._start_epoch:
            return
        if self._every_epoch:
            self._average.update_parameters(model)
        if self._buffers == "recompute":
            update_bn(pictures(), self._average)

    def evaluated(self, model: nn.Module) -> nn.Module:
        averaged: nn.Module = self._average.module
        return averaged if int(self._average.n_averaged) > 0 else model

    def state_dict(self) -> dict[str, Any]:
        return {"average": self._average.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._average.load_state_dict(state["average"])


def _exponential(decay: float) -> Average:
    def average(averaged: Tensor, live: Tensor, count: Tensor | int) -> Tensor:
        # Whole numbers (batch norm's counters) are taken over. lerp leaves equal values (normalisation) exactly equal.
        return torch.lerp(averaged, live, 1 - decay) if averaged.is_floating_point() else live

    return average


def _equal(averaged: Tensor, live: Tensor, count: Tensor | int) -> Tensor:
    if not averaged.is_floating_point():
        return live
    return averaged + (live - averaged) / (torch.as_tensor(count).to(averaged) + 1)


class _AveragingOptions(WeightOptions):
    start_epoch: int = Field(default=1, ge=1)

    def same_until(self, epoch: int) -> bool:
        return self.start_epoch > epoch


@REGISTRY.register("ema")
class EmaOptions(_AveragingOptions):
    """Exponential moving average after every step (Rebuffi et al. 2021); the first step averaged is taken as it is."""

    decay: float = Field(default=0.995, gt=0, lt=1)
    buffers: Buffers = "average"

    def build(self, model: nn.Module) -> AveragedWeights:
        return AveragedWeights(model, self.start_epoch, self.buffers, _exponential(self.decay), every_epoch=False)


@REGISTRY.register("swa")
class SwaOptions(_AveragingOptions):
    """Equal average of the weights at the end of each epoch (Izmailov et al. 2018)."""

    buffers: Buffers = "recompute"

    def build(self, model: nn.Module) -> AveragedWeights:
        return AveragedWeights(model, self.start_epoch, self.buffers, _equal, every_epoch=True)
