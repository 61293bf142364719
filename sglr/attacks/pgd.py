"""Projected gradient descent (Madry et al. 2018)."""

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from sglr.attacks import losses
from sglr.attacks.inputs import outside_inference_mode, require_inputs
from sglr.attacks.losses import Loss, misclassified
from sglr.attacks.registry import REGISTRY, Attack, AttackOptions
from sglr.attacks.restarts import worst_case
from sglr.random import torch_stream
from sglr.threat import Threat


@outside_inference_mode
def pgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    threat: Threat,
    step_size: float | None = None,
    steps: int = 20,
    restarts: int = 1,
    loss: str | Loss = "ce",
    random_start: bool = True,
    generator: torch.Generator | None = None,
    start: Tensor | None = None,
) -> Tensor:
    """Ascend the loss inside the ball around x.

    The model is used in the mode it is in (see ``attack_mode``); its parameters' ``.grad`` is not touched.

    Args:
        model: Images in [0, 1] in, logits (N, classes) out.
        x: Images (N, C, H, W) in [0, 1]. In half precision the ball is exact up to its rounding alone.
        y: True labels (N,), int64; or targets: probabilities (N, classes) for "ce", for a loss of one's own (N, ...) of
            any kind. A targeted attack's classes go in as (N, 1), which are no labels.
        threat: The ball, such as ``sglr.threat.Linf(8 / 255)``.
        step_size: Length of a step, in the units of x; None: a quarter of the radius.
        steps: Gradient steps.
        restarts: Attempts; each example keeps its worst case: the first that is misclassified, after which it is left
            alone, else the one of highest loss. By targets, which name no class, that of highest loss.
        loss: "ce", "cw", "dlr" or a function (logits, y) -> (N,) that is ascended, such as minus the cross-entropy
            with the classes to reach.
        random_start: Start at a random point of the ball, not at x.
        generator: Of the random starts; None: torch's global one.
        start: Points of the ball (N, C, H, W) to ascend from instead; there is then one restart.

    Returns:
        x_adv, detached, of x's shape and dtype.

    Raises:
        ValueError: Images lie outside [0, 1]; labels are no classes of the model; it gives a single logit; the loss is
            unknown or not one number per example; the step size is negative or not finite; steps or restarts are below
            1; there are restarts without a random start; ``start`` has not x's shape and type.
        TypeError: Images or labels are no tensors, labels are not int64 (N,), or the threat is no threat model.
    """
    if steps < 1 or restarts < 1:
        raise ValueError(f"steps and restarts must be at least 1, found {steps} and {restarts}")
    require_inputs(x, y, threat, loss)
    step_size = threat.eps / 4 if step_size is None else step_size
    if not 0 <= step_size < math.inf:
        raise ValueError(f"step_size must be a finite number of at least 0, found {step_size}")
    if restarts > 1 and (start is not None or not random_start):
        raise ValueError(f"restarts={restarts} needs a random start and no `start`: all would be the same attack")
    if start is not None and (start.shape != x.shape or start.dtype != x.dtype):
        found, wanted = (f"{points.dtype} {tuple(points.shape)}" for points in (start, x))
        raise ValueError(f"start must be points of the images' form, {wanted}, found {found}")
    criterion, x = losses.criterion(loss), x.detach()

    def attempt(x: Tensor, y: Tensor) -> Tensor:
        first = start.detach() if start is not None else threat.random_start(x, generator) if random_start else x
        return ascend(model, x, y, threat=threat, step_size=step_size, steps=steps, loss=criterion, start=first)

    def scored(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        x_adv = attempt(x, y)
        with torch.no_grad():
            logits = model(x_adv)
            return x_adv, criterion(logits, y).masked_fill(misclassified(logits, y), torch.inf)

    return attempt(x, y) if restarts == 1 else worst_case(scored, x, y, restarts)


def ascend(
    model: nn.Module, x: Tensor, y: Tensor, *, threat: Threat, step_size: float, steps: int, loss: Loss, start: Tensor
) -> Tensor:
    """The steps of ``pgd`` from points ``start`` (N, C, H, W). Nothing is checked, and nothing waits for the device."""
    project = threat.projection(x)
    x_adv = start
    for _ in range(steps):
        gradient = input_gradient(model, x_adv, y, loss)
        x_adv = project(x_adv + threat.step(gradient, step_size))
    return x_adv


def input_gradient(model: nn.Module, x: Tensor, y: Tensor, criterion: Loss) -> Tensor:
    """Gradient of the summed per-example loss with respect to x (N, ...); no other gradient is computed.

    Where it overflowed it is the largest finite number of that sign, where it is NaN zero: no pixel becomes NaN. It is
    zero, too, where the loss does not depend on x by differentiable operations.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        return gradient_of(criterion(model(x), y), x)


def gradient_of(loss: Tensor, x: Tensor) -> Tensor:
    """As ``input_gradient``, of a loss (N,) that was computed from x with gradients enabled."""
    if not loss.requires_grad:
        return torch.zeros_like(x)
    (gradient,) = torch.autograd.grad(loss.sum(), x, allow_unused=True)
    return torch.zeros_like(x) if gradient is None else torch.nan_to_num(gradient, nan=0.0)


@REGISTRY.register("pgd")
class PgdOptions(AttackOptions):
    """PGD-k; step size in 255ths, null for a quarter of eps; the loss it ascends."""

    steps: int = Field(default=20, ge=1)
    step_size_255: float | None = Field(default=None, gt=0)
    restarts: int = Field(default=1, ge=1)
    loss: Literal["ce", "cw", "dlr"] = "ce"

    def misfit(self, num_classes: int, shape: tuple[int, int, int], norm: str) -> str | None:
        return losses.misfit(self.loss, num_classes)

    def passes(self, num_classes: int) -> tuple[float, float]:
        return self.restarts * self.steps, self.restarts * self.steps

    def build(self, threat: Threat) -> Attack:
        step_size = None if self.step_size_255 is None else self.step_size_255 / 255

        def attack(model: nn.Module, x: Tensor, y: Tensor, *, seed: int) -> Tensor:
            return pgd(
                model,
                x,
                y,
                threat=threat,
                step_size=step_size,
                steps=self.steps,
                restarts=self.restarts,
                loss=self.loss,
                generator=torch_stream(seed, "pgd", device=x.device),
            )

        return attack
