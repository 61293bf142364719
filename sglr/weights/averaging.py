"""Averaged weights: exponential moving average and stochastic weight averaging."""

import copy
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from sglr.weights.registry import REGISTRY, WeightOptions, WeightPolicy, share_of

Buffers = Literal["average", "copy", "recompute"]
Share = Callable[[int], float]
"""Number of models averaged so far -> the share of the next one in the new average; 1 for 0."""


class AveragedWeights(WeightPolicy):
    """From ``start_epoch`` on, an average beside the live model; it is what is validated, selected and saved.

    Before the start the live model is. The average shares no storage with it. Batch norm's statistics are averaged like
    weights (``average``), those of the live model (``copy``), or measured anew at the end of each epoch on the natural
    training images (``recompute``, Izmailov et al. 2018).

    Not torch's AveragedModel: it asks a counter on the device at every update, and the host waits there.
    """

    def __init__(
        self, model: nn.Module, start_epoch: int, buffers: Buffers, share: Share, *, every_epoch: bool
    ) -> None:
        self._start_epoch, self._every_epoch, self._buffers = start_epoch, every_epoch, buffers
        self._share, self._count = share, 0
        self._average = copy.deepcopy(model)

    def after_step(self, model: nn.Module, epoch: int) -> None:
        if epoch >= self._start_epoch and not self._every_epoch:
            self._update(model)

    def after_epoch(self, model: nn.Module, epoch: int, images: Callable[[], Iterable[Tensor]]) -> None:
        if epoch < self._start_epoch:
            return
        if self._every_epoch:
            self._update(model)
        if self._buffers == "recompute":
            update_bn(images(), self._average)

    def evaluated(self, model: nn.Module) -> nn.Module:
        return self._average if self._count else model

    def state_dict(self) -> dict[str, Any]:
        return {"average": self._average.state_dict(), "count": self._count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._average.load_state_dict(state["average"])
        self._count = state["count"]

    @torch.no_grad()
    def _update(self, model: nn.Module) -> None:
        pairs = list(zip(self._average.parameters(), model.parameters(), strict=True))
        buffers = list(zip(self._average.buffers(), model.buffers(), strict=True))
        # Whole numbers (batch norm's counters, parameters that are not trained) are taken over.
        buffers += [pair for pair in pairs if not pair[0].is_floating_point()]
        pairs = [pair for pair in pairs if pair[0].is_floating_point()]
        averaged = [pair for pair in buffers if self._buffers == "average" and pair[0].is_floating_point()]
        # lerp leaves equal values (normalisation) exactly equal.
        ours, theirs = zip(*pairs, *averaged, strict=True)
        torch._foreach_lerp_(ours, theirs, self._share(self._count))
        copied = [pair for pair in buffers if self._buffers != "average" or not pair[0].is_floating_point()]
        if copied:
            mine, live = zip(*copied, strict=True)
            torch._foreach_copy_(mine, live)
        self._count += 1


class _AveragingOptions(WeightOptions):
    averages: ClassVar[bool] = True
    start_epoch: int = Field(default=1, ge=1)
    buffers: Buffers

    def added_passes(self, own: int, epochs: int) -> tuple[float, float]:
        return share_of(epochs, self.start_epoch) if self.buffers == "recompute" else 0.0, 0.0

    def same_until(self, epoch: int) -> bool:
        return self.start_epoch > epoch


@REGISTRY.register("ema")
class EmaOptions(_AveragingOptions):
    """Exponential moving average after every step (Rebuffi et al. 2021); the first step averaged is taken as it is."""

    title: ClassVar[str] = "exponential moving average"
    decay: float = Field(default=0.995, gt=0, lt=1)
    buffers: Buffers = "average"

    def build(self, model: nn.Module) -> AveragedWeights:
        return AveragedWeights(
            model, self.start_epoch, self.buffers, lambda count: 1 - self.decay if count else 1, every_epoch=False
        )


@REGISTRY.register("swa")
class SwaOptions(_AveragingOptions):
    """Equal average of the weights at the end of each epoch (Izmailov et al. 2018)."""

    title: ClassVar[str] = "stochastic weight averaging"
    buffers: Buffers = "recompute"

    def build(self, model: nn.Module) -> AveragedWeights:
        return AveragedWeights(model, self.start_epoch, self.buffers, lambda count: 1 / (count + 1), every_epoch=True)
