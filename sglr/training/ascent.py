"""The steps of a training's attack where torch compiles them: gradient, step and ball of each as one graph."""

from typing import Self

import torch
from torch import Tensor, nn

from sglr.attacks.losses import Loss
from sglr.config.fields import Compile
from sglr.models.compiling import graphs, wanted
from sglr.models.folding import Folded
from sglr.threat import Threat

# Tried with this and newer ones.
_OLDEST = "2.11"


class Ascent:
    """``sglr.attacks.pgd.ascend`` for batches of one size, on a folded network: the same points up to rounding.

    Made of separate pieces, the network's graphs for forward and backward pass and a dozen small operations beside
    them, a step is bound by the time in which a GPU's host can start it all.
    """

    def __init__(self, step: nn.Module, batch: int) -> None:
        self._step = step
        self.batch = batch

    @classmethod
    def of(
        cls, network: Folded, threat: Threat, size: float, device: torch.device, asked: Compile, *, batch: int,
        channels_last: bool,
    ) -> Self | None:  # fmt: skip
        """None where nothing is to be compiled, or the network may do what ``torch.func`` cannot take a gradient of."""
        if not wanted(asked, device) or not network.traced or torch.__version__ < _OLDEST:
            return None
        return cls(graphs(_Step(network, threat, size), device, channels_last=channels_last), batch)

    def __call__(self, start: Tensor, x: Tensor, y: Tensor, loss: Loss, steps: int) -> Tensor:
        """Points of the ball around x (N, C, H, W) in [0, 1], ``steps`` steps from ``start``; N must be ``batch``.

        ``loss`` makes (N,) of logits (N, num_classes) and y, labels (N,) or targets, and is ascended.
        """
        # In memory of its own: with one tensor given twice torch would record another graph.
        x_adv = start.clone() if start is x else start
        with torch.no_grad():
            for _ in range(steps):
                x_adv = self._step(x_adv, x, y, loss).clone()  # a CUDA graph writes its next point into the same memory
        return x_adv


class _Step(nn.Module):
    """One step as a function of tensors alone, for what a loss has in its closure becomes an input of the graph."""

    def __init__(self, network: nn.Module, threat: Threat, size: float) -> None:
        super().__init__()
        self.network, self.threat, self.size = network, threat, size

    def forward(self, x_adv: Tensor, x: Tensor, y: Tensor, loss: Loss) -> Tensor:
        gradient = torch.func.grad(lambda point: loss(self.network(point), y).sum())(x_adv)
        step = self.threat.step(torch.nan_to_num(gradient, nan=0.0), self.size)
        return self.threat.projection(x)(x_adv + step)
