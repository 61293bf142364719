"""The loss along one filter-normalised random direction in weight space (Li et al. 2018)."""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from sglr.information.checks import Floats


def direction(model: nn.Module, generator: torch.Generator) -> dict[str, Tensor]:
    """A Gaussian direction in which every filter (output unit) has the norm of the model's own; by parameter name.

    Biases and batch norm's parameters (all of one axis) do not move, as in the authors' code.
    """
    found = {}
    for name, value in model.named_parameters():
        if value.dim() < 2:
            found[name] = torch.zeros_like(value)
            continue
        draw = torch.randn(value.shape, generator=generator, device=value.device)
        norms = (value.detach().flatten(1).norm(dim=1), draw.flatten(1).norm(dim=1))
        scale = (norms[0] / norms[1]).reshape(-1, *(1 for _ in value.shape[1:]))
        found[name] = (draw * scale).to(value.dtype)
    return found


@torch.no_grad()
def walk(
    model: nn.Module, along: dict[str, Tensor], radii: Sequence[float], losses: Callable[[nn.Module], Floats]
) -> list[Floats]:
    """The result of ``losses`` for the model at w + r d, for each r; called with a copy, the model never changes."""
    found = []
    for radius in radii:
        moved = copy.deepcopy(model)
        for name, value in moved.named_parameters():
            value.add_(along[name], alpha=radius)
        with torch.enable_grad():
            found.append(losses(moved))
    return found
