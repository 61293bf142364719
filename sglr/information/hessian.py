"""Sharpness: the eigenvalue of the loss's Hessian that is largest in absolute value, by power iteration."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp

from sglr.information.checks import Floats
from sglr.objectives import soft_cross_entropy


@dataclass(frozen=True)
class Eigenvalue:
    """value: v^T H v of the last unit vector v; contributions: v^T H_i v (N,), whose mean is the value; iterations: how
    many were made; converged: whether the last one moved the value by less than the tolerance, relative to it."""

    value: float
    contributions: Floats
    iterations: int
    converged: bool


def largest_eigenvalue(
    model: nn.Module,
    x: Tensor,
    targets: Tensor,
    *,
    iterations: int,
    chunk: int,
    generator: torch.Generator,
    tolerance: float = 1e-3,
) -> Eigenvalue:
    """For the mean cross-entropy of x (N, C, H, W) against targets (N, C), with respect to all weights.

    Power iteration with Hessian-vector products (Pearlmutter 1994) from a random vector, which converges to the
    eigenvalue of largest absolute value: for a trained classifier the most positive one, and its sign says if not.
    Model in eval mode (ValueError otherwise); chunk: examples at once. Stopped early it is too small in absolute value.
    Batch norm makes the loss invariant to the scale of the weights before it, but not the Hessian: do not compare
    networks whose weights differ in scale by this number alone.
    """
    if any(module.training for module in model.modules()):
        raise ValueError("the Hessian needs a model in eval mode: batch norm would change with the weights")
    parameters = [value for value in model.parameters() if value.requires_grad]
    vector = _unit([torch.empty_like(value.detach()).normal_(generator=generator) for value in parameters])
    value, done, converged = 0.0, 0, False
    while done < iterations and not converged:
        product = _product(model, parameters, x, targets, vector, chunk)
        before, value = value, float(_inner(vector, product))
        done += 1
        converged = done > 1 and abs(value - before) <= tolerance * abs(value)
        if _inner(product, product) == 0:
            converged = True
        elif done < iterations and not converged:
            vector = _unit(product)
    names = [name for name, value in model.named_parameters() if value.requires_grad]
    contributions = _curvatures(model, dict(zip(names, vector, strict=True)), x, targets, chunk)
    return Eigenvalue(float(contributions.mean()), contributions, done, converged)


def _product(
    model: nn.Module, parameters: list[nn.Parameter], x: Tensor, targets: Tensor, vector: list[Tensor], chunk: int
) -> list[Tensor]:
    """H v of the mean loss, summed over chunks."""
    total = [torch.zeros_like(value) for value in vector]
    for part, wanted in zip(x.split(chunk), targets.split(chunk), strict=True):
        with torch.enable_grad():
            loss = soft_cross_entropy(model(part), wanted).sum() / len(x)
            gradients = torch.autograd.grad(loss, parameters, create_graph=True)
            along = torch.stack([(g * v).sum() for g, v in zip(gradients, vector, strict=True)]).sum()
            found = torch.autograd.grad(along, parameters, materialize_grads=True)
        for where, value in zip(total, found, strict=True):
            where += value
    return total


def _curvatures(model: nn.Module, direction: dict[str, Tensor], x: Tensor, targets: Tensor, chunk: int) -> Floats:
    """Second derivatives (N,) of each example's loss along a direction, forward mode twice."""
    weights = {name: value.detach() for name, value in model.named_parameters()}
    tangent = {name: direction.get(name, torch.zeros_like(value)) for name, value in weights.items()}
    rest = {name: value.detach() for name, value in model.named_buffers()}
    found = []
    for part, wanted in zip(x.split(chunk), targets.split(chunk), strict=True):

        def losses(at: dict[str, Tensor], part: Tensor = part, wanted: Tensor = wanted) -> Tensor:
            return soft_cross_entropy(functional_call(model, (at, rest), (part,)), wanted)

        def slope(at: dict[str, Tensor], losses: Callable[..., Tensor] = losses) -> Tensor:
            value: Tensor = jvp(losses, (at,), (tangent,))[1]
            return value

        found.append(jvp(slope, (weights,), (tangent,))[1])
    joined: Floats = torch.cat(found).cpu().numpy().astype(np.float64)
    return joined


def _inner(a: list[Tensor], b: list[Tensor]) -> Tensor:
    return torch.stack([(left.double() * right.double()).sum() for left, right in zip(a, b, strict=True)]).sum()


def _unit(vector: list[Tensor]) -> list[Tensor]:
    size = _inner(vector, vector).sqrt()
    return [(value / size).to(value.dtype) for value in vector]
