"""Sharpness: the largest eigenvalue of the loss's Hessian, by Lanczos' method."""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp

from sglr.information.checks import Floats
from sglr.objectives import soft_cross_entropy

# A step that leaves this little, relative to the spectrum found, has exhausted what the start can reach.
_EXHAUSTED = 1e-6
_INFINITE = "the second derivatives of the loss are not finite"


class InfiniteError(ValueError):
    """Second derivatives of the loss are beyond what the weights' type holds."""


@dataclass(frozen=True)
class Eigenvalue:
    """value: v^T H v of the unit vector v found; contributions: v^T H_i v (N,), whose mean is the value; iterations:
    Hessian-vector products made; residual: ||H v - value v||, within which of the value an eigenvalue certainly lies;
    converged: whether that is at most the tolerance, relative to the value."""

    value: float
    contributions: Floats
    iterations: int
    residual: float
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

    The algebraically largest one, by Lanczos' method (1950) with Hessian-vector products (Pearlmutter 1994) from a
    random vector. Power iteration, with the same products, can stall between extreme eigenvalues of equal magnitude and
    opposite sign, as near initialisation, without the value showing it: hence the residual as the criterion. The value
    is never above the largest eigenvalue, but for rounding; the error of a converged one is of the order of the
    residual squared over the gap to the next. A start that is by chance almost orthogonal to the eigenvector can still
    miss it; with as few as tens of weights that happens, with thousands hardly.

    Model in eval mode, iterations at least 1 (ValueError otherwise); chunk: examples at once. Memory: ``iterations``
    times the number of weights. Batch norm makes the loss invariant to the scale of the weights before it, but not the
    Hessian: do not compare networks whose weights differ in scale by this number alone.

    InfiniteError where second derivatives overflow, as those of a network that diverged may with finite logits.
    """
    if any(module.training for module in model.modules()):
        raise ValueError("the Hessian needs a model in eval mode: batch norm would change with the weights")
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1, found {iterations}")
    named = {name: value for name, value in model.named_parameters() if value.requires_grad}
    parameters = list(named.values())
    start = torch.cat([torch.empty_like(value.detach()).normal_(generator=generator).flatten() for value in parameters])
    basis = start.new_empty(min(iterations, len(start)), len(start))
    basis[0] = start / start.norm()
    diagonal: list[float] = []
    beside: list[float] = []
    while True:
        done = len(diagonal)
        product = _flat(_product(model, parameters, x, targets, _parts(basis[done], parameters), chunk))
        diagonal.append(float(basis[done].double() @ product.double()))
        # Against all earlier vectors, twice: without it rounding brings copies of eigenvalues already found.
        for _ in range(2):
            product = product - (basis[: done + 1] @ product) @ basis[: done + 1]
        beside.append(float(product.norm()))
        if not math.isfinite(diagonal[-1] + beside[-1]):
            raise InfiniteError(_INFINITE)
        values, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(beside[:-1], 1) + np.diag(beside[:-1], -1))
        residual = beside[-1] * abs(float(vectors[-1, -1]))
        converged = residual <= max(tolerance * abs(values[-1]), _EXHAUSTED * float(abs(values).max()))
        if converged or done + 1 == len(basis):
            break
        basis[done + 1] = product / beside[-1]
    weights = torch.from_numpy(vectors[:, -1]).to(basis)
    found = _parts(weights @ basis[: len(diagonal)], parameters)
    contributions = _curvatures(model, dict(zip(named, found, strict=True)), x, targets, chunk)
    if not np.isfinite(contributions).all():
        raise InfiniteError(_INFINITE)
    return Eigenvalue(float(contributions.mean()), contributions, len(diagonal), residual, bool(converged))


def _product(
    model: nn.Module, parameters: list[nn.Parameter], x: Tensor, targets: Tensor, vector: list[Tensor], chunk: int
) -> list[Tensor]:
    """H v of the mean loss, summed over chunks."""
    total = [torch.zeros_like(value) for value in vector]
    for part, wanted in zip(x.split(chunk), targets.split(chunk), strict=True):
        with torch.enable_grad():
            loss = soft_cross_entropy(model(part), wanted).sum() / len(x)
            gradients = torch.autograd.grad(loss, parameters, create_graph=True, materialize_grads=True)
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

        with warnings.catch_warnings():
            # Torch's first forward-mode derivative in a process compiles rules of its own by torch.jit.script.
            warnings.filterwarnings("ignore", ".*torch.jit.script", FutureWarning)
            warnings.filterwarnings("ignore", ".*torch.jit.script", DeprecationWarning)
            found.append(jvp(slope, (weights,), (tangent,))[1])
    # In torch 2.6 weights that are not used leave their requirement of a gradient on it.
    joined: Floats = torch.cat(found).detach().cpu().numpy().astype(np.float64)
    return joined


def _flat(parts: list[Tensor]) -> Tensor:
    return torch.cat([part.flatten() for part in parts])


def _parts(vector: Tensor, parameters: list[nn.Parameter]) -> list[Tensor]:
    """A vector over all weights as one tensor per parameter."""
    pieces = vector.split([value.numel() for value in parameters])
    return [piece.view(value.shape) for piece, value in zip(pieces, parameters, strict=True)]
