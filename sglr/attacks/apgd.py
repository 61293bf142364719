"""Auto-PGD (Croce and Hein 2020, algorithm 1): PGD with momentum whose step size halves where progress stalls."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from sglr.attacks import losses
from sglr.attacks.inputs import outside_inference_mode, require_inputs
from sglr.attacks.losses import Loss, misclassified
from sglr.attacks.pgd import gradient_of
from sglr.attacks.registry import REGISTRY, Attack, AttackOptions
from sglr.attacks.restarts import worst_case
from sglr.random import torch_stream
from sglr.threat import Linf, Threat, blank_like, per_image

# The paper's constants: momentum, the share of rising steps below which a step size halves, first checkpoint, by how
# much the distance between checkpoints shrinks, and its least value (the last three as shares of the steps).
_MOMENTUM, _RISING = 0.75, 0.75
_FIRST, _SHRINK, _LEAST = 0.22, 0.03, 0.06


@outside_inference_mode
def apgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    threat: Threat,
    steps: int = 100,
    restarts: int = 1,
    loss: str | Loss = "ce",
    generator: torch.Generator | None = None,
) -> Tensor:
    """Ascend the loss inside the ball around x; there is no step size to choose.

    Every run starts on the sphere of radius eps; restarts go on with the examples that are not misclassified yet.

    Args:
        model: Images in [0, 1] in, logits (N, classes) out.
        x: Images (N, C, H, W) in [0, 1].
        y: As for ``pgd``.
        threat: The ball, such as ``sglr.threat.Linf(8 / 255)``.
        steps: Gradient steps of a run.
        restarts: Runs.
        loss: "ce", "cw", "dlr" (at least 3 classes) or a function, as for ``pgd``.
        generator: Of the random starts; None: torch's global one.

    Returns:
        For each example the last misclassified point that was met, else, and by targets always, the point of highest
        loss; detached.

    Raises:
        ValueError, TypeError: As for ``pgd``.
    """
    if steps < 1 or restarts < 1:
        raise ValueError(f"steps and restarts must be at least 1, found {steps} and {restarts}")
    require_inputs(x, y, threat, loss)
    criterion, x = losses.criterion(loss), x.detach()

    def attempt(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return _run(model, x, y, threat, criterion, steps, _on_sphere(threat, x, generator))

    return worst_case(attempt, x, y, restarts)


def _run(
    model: nn.Module, x: Tensor, y: Tensor, threat: Threat, criterion: Loss, steps: int, start: Tensor
) -> tuple[Tensor, Tensor]:
    """Adversarial points (N, ...) of one run and their scores (N,): infinite where misclassified, else the loss."""
    value, gradient, fooled = _evaluate(model, start, y, criterion)
    point = previous = start
    best, best_value, best_gradient, adversarial = start, value, gradient, start
    size = torch.full_like(value, 2 * threat.eps)
    rising = torch.zeros_like(value)
    # Best value and whether the step size was halved, at the last checkpoint.
    checked_value, halved = value, torch.ones_like(fooled)
    checkpoints = _checkpoints(steps)
    for step in range(steps):
        moved = threat.project(point + per_image(size, x) * threat.step(gradient, 1.0), x)
        if step > 0:
            mixed = point + _MOMENTUM * (moved - point) + (1 - _MOMENTUM) * (point - previous)
            moved = threat.project(mixed, x)
        point, previous = moved, point
        old_value = value
        value, gradient, wrong = _evaluate(model, point, y, criterion)
        adversarial = torch.where(per_image(wrong, x), point, adversarial)
        fooled = fooled | wrong
        rising += value > old_value
        better = value > best_value
        best = torch.where(per_image(better, x), point, best)
        best_gradient = torch.where(per_image(better, x), gradient, best_gradient)
        best_value = torch.where(better, value, best_value)
        if step + 1 in checkpoints:
            window = checkpoints[step + 1]
            halve = (rising <= _RISING * window) | (~halved & (best_value <= checked_value))
            size = torch.where(halve, size / 2, size)
            point = torch.where(per_image(halve, x), best, point)
            gradient = torch.where(per_image(halve, x), best_gradient, gradient)
            value = torch.where(halve, best_value, value)
            checked_value, halved, rising = best_value, halve, torch.zeros_like(rising)
    return torch.where(per_image(fooled, x), adversarial, best), best_value.masked_fill(fooled, torch.inf)


def _evaluate(model: nn.Module, x: Tensor, y: Tensor, criterion: Loss) -> tuple[Tensor, Tensor, Tensor]:
    """Loss (N,), its gradient (N, ...) as in ``pgd``, and which examples (N,) are misclassified: one forward pass."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        logits = model(x)
        value = criterion(logits, y)
        gradient = gradient_of(value, x)
    return value.detach().to(x.dtype), gradient, misclassified(logits.detach(), y)


def _checkpoints(steps: int) -> dict[int, int]:
    """Steps after which the step size is reconsidered, and how many steps each looks back on."""
    window, least, shrink = (max(int(share * steps), 1) for share in (_FIRST, _LEAST, _SHRINK))
    at, result = 0, {}
    while at + window <= steps:
        at += window
        result[at] = window
        window = max(window - shrink, least)
    return result


def _on_sphere(threat: Threat, x: Tensor, generator: torch.Generator | None) -> Tensor:
    """A random point at distance eps from x (before clipping): uniform direction in the cube, normal otherwise."""
    uniform = isinstance(threat, Linf)
    empty = blank_like(x)
    draw = empty.uniform_(-1, 1, generator=generator) if uniform else empty.normal_(generator=generator)
    length = threat.distance(draw, torch.zeros_like(draw))
    return threat.project(x + threat.eps * draw / per_image(length, x), x)


@REGISTRY.register("apgd")
class ApgdOptions(AttackOptions):
    """Auto-PGD; the loss it ascends."""

    steps: int = Field(default=100, ge=1)
    restarts: int = Field(default=1, ge=1)
    loss: Literal["ce", "cw", "dlr"] = "ce"

    def misfit(self, num_classes: int, shape: tuple[int, int, int], norm: str) -> str | None:
        return losses.misfit(self.loss, num_classes)

    def passes(self, num_classes: int) -> tuple[float, float]:
        return self.restarts * self.steps, self.restarts * self.steps

    def build(self, threat: Threat) -> Attack:
        def attack(model: nn.Module, x: Tensor, y: Tensor, *, seed: int) -> Tensor:
            return apgd(
                model,
                x,
                y,
                threat=threat,
                steps=self.steps,
                restarts=self.restarts,
                loss=self.loss,
                generator=torch_stream(seed, "apgd", device=x.device),
            )

        return attack
