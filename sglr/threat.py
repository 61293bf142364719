"""Threat models: the Linf and L2 balls around an image, intersected with [0, 1]."""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from sglr.config import sections


class Threat(Protocol):
    """A ball around each image (radius in [0, 1] units of pixel values) and the operations an attack needs."""

    @property
    def eps(self) -> float:
        """The radius."""
        ...

    def random_start(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A random point of the ball around x (N, ...), clipped to [0, 1]."""
        ...

    def step(self, gradient: Tensor, size: float) -> Tensor:
        """The step of length ``size`` that increases the loss most; zero where the gradient is zero."""
        ...

    def projection(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        """A function of x_adv (N, ...): the point of the ball around x, then of [0, 1], nearest to it.

        What depends on x alone is computed once, for the many steps of an attack.
        """
        ...

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """``projection(x)`` of x_adv."""
        ...

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Norm of the perturbation per example (N,)."""
        ...


def _norms(v: Tensor) -> Tensor:
    """L2 norm per example, shaped to broadcast against v (N, ...)."""
    return per_image(v.flatten(1).norm(dim=1), v)


def per_image(v: Tensor, x: Tensor) -> Tensor:
    """One number per image, v (N,), shaped to broadcast against x (N, ...)."""
    return v.view(-1, *[1] * (x.dim() - 1))


def blank_like(x: Tensor) -> Tensor:
    """Memory for x's shape that is filled in the same order however x lies in memory: random numbers then agree."""
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@dataclass(frozen=True)
class Linf:
    """Every pixel may change by at most ``eps``. Random start U(-eps, eps); steepest step: sign of the gradient.

    Warns of a radius above 1, in which all images are: it was probably given in 255ths.
    """

    eps: float

    def __post_init__(self) -> None:
        _check_eps(self.eps)
        if self.eps > 1:
            warnings.warn(
                f"the ball of Linf({self.eps:g}) holds all images, which are in [0, 1]: radii in 255ths are given as"
                f" Linf({self.eps:g} / 255)",
                stacklevel=3,
            )

    def random_start(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        noise = blank_like(x).uniform_(-self.eps, self.eps, generator=generator)
        return self.project(x + noise, x)

    def step(self, gradient: Tensor, size: float) -> Tensor:
        return gradient.sign().mul_(size)

    def projection(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        # The ball and the box have x in common, so that their intersection is one interval a pixel.
        lowest, highest = (x - self.eps).clamp_(min=0), (x + self.eps).clamp_(max=1)
        return lambda x_adv: torch.clamp(x_adv, lowest, highest)

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        return self.projection(x)(x_adv)

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        return (x_adv - x).abs().flatten(1).amax(1)


@dataclass(frozen=True)
class L2:
    """The perturbation's Euclidean norm is at most ``eps``.

    Random start: Gaussian direction with radius U(0, eps); steepest step: gradient over its norm.
    """

    eps: float

    def __post_init__(self) -> None:
        _check_eps(self.eps)

    def random_start(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        direction = blank_like(x).normal_(generator=generator)
        radius = torch.empty(x.shape[0], device=x.device, dtype=x.dtype).uniform_(0, self.eps, generator=generator)
        noise = direction / _norms(direction) * per_image(radius, x)
        return torch.clamp(x + noise, 0, 1)

    def step(self, gradient: Tensor, size: float) -> Tensor:
        # Squares of very small or large gradients under- or overflow: a saturated loss would seem to have none.
        largest = per_image(gradient.flatten(1).abs().amax(1), gradient)
        scaled = torch.where(largest > 0, gradient / largest, torch.zeros_like(gradient))
        return torch.where(largest > 0, scaled / _norms(scaled), scaled) * size

    def projection(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda x_adv: self.project(x_adv, x)

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        delta = x_adv - x
        norms = _norms(delta)
        shrunk = torch.where(norms > self.eps, delta * (self.eps / norms), delta)
        # Clipping to [0, 1], which holds x, brings every coordinate nearer to x: the point stays in the ball.
        return torch.clamp(x + shrunk, 0, 1)

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        return (x_adv - x).flatten(1).norm(dim=1)


def build(norm: str, eps: float) -> Threat:
    """The threat model called ``norm`` ('linf' or 'l2') with radius ``eps``; ValueError for another name.

    It warns of no radius: ``config.doubts`` does, in the units of params.
    """
    kinds: dict[str, type[Linf] | type[L2]] = {"linf": Linf, "l2": L2}
    if norm not in kinds:
        raise ValueError(f"unknown norm {norm!r}; known: {', '.join(kinds)}")
    with warnings.catch_warnings(action="ignore"):
        return kinds[norm](eps)


def of(asked: "sections.ThreatSettings") -> Threat:
    """The threat model of a params file (``config.threat``)."""
    return build(asked.norm, asked.eps_255 / 255)


def _check_eps(eps: float) -> None:
    if isinstance(eps, str) or not (math.isfinite(eps) and eps >= 0):
        raise ValueError(f"eps must be a finite number of at least 0, found {eps!r}")
