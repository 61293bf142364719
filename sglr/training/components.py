"""What an objective and a label policy give in training, checked as far as it can be without waiting for the device."""

import torch
from torch import Tensor

from sglr.training.errors import TrainingError
from sglr.training.plan import Plan

# By how much sums of probabilities may differ from 1, in half precision too.
_ROUNDED = 0.02


def checked_loss(plan: Plan, loss: Tensor) -> Tensor:
    """The loss that the objective gives; TrainingError where it is not one number with a gradient."""
    if not isinstance(loss, Tensor) or loss.dim() != 0:
        form = f"of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"that is a {type(loss).__name__}"
        raise TrainingError(f"the objective {plan.method.objective.name!r} gives a loss {form}, not a mean: one number")
    if not loss.requires_grad:
        raise TrainingError(
            f"the objective {plan.method.objective.name!r} gives a loss that does not depend on the logits by"
            " differentiable operations (was something detached?)"
        )
    return loss


def checked_targets(plan: Plan, targets: Tensor, shape: tuple[int, int], of: str) -> Tensor:
    """Targets or refined labels, ``of`` whom the label policy gives them; TrainingError where they are not floating
    point and of ``shape``, (examples, classes)."""
    if not isinstance(targets, Tensor) or targets.shape != shape or not targets.is_floating_point():
        form = f"{targets.dtype} {tuple(targets.shape)}" if isinstance(targets, Tensor) else type(targets).__name__
        raise TrainingError(f"{_policy(plan)} gives {form} for {of}, not probabilities {shape}")
    return targets


@torch.no_grad()
def require_probabilities(plan: Plan, targets: Tensor, of: str) -> None:
    """TrainingError where a row of targets (N, C) is no probability vector. Waits for the device."""
    if not len(targets):
        return
    lowest, sums = targets.min().item(), targets.double().sum(1)
    least, most = sums.min().item(), sums.max().item()
    if not (lowest >= -1e-6 and abs(least - 1) < _ROUNDED and abs(most - 1) < _ROUNDED):
        raise TrainingError(
            f"{_policy(plan)} gives no probabilities for {of}: rows sum to {least:g} to {most:g}, not 1, and the lowest"
            f" entry is {lowest:g}"
        )


def _policy(plan: Plan) -> str:
    return f"the label policy {plan.method.labels.name!r}"
