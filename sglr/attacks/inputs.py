"""Inputs of attacks: checked, and fit to take gradients."""

import functools
import math
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from sglr.attacks.losses import Loss
from sglr.threat import L2, Threat

_ROUNDED = 1e-5
P = ParamSpec("P")
R = TypeVar("R")


def outside_inference_mode(function: Callable[P, R]) -> Callable[P, R]:
    """The function, which needs gradients, as it is without ``torch.inference_mode``; tensors made in it are copied.

    Torch takes no gradient in that mode, nor, later, at its tensors: an attack would follow zeros.
    """

    def usable(value: Any) -> Any:
        return value.clone() if isinstance(value, Tensor) and value.is_inference() else value

    @functools.wraps(function)
    def called(*given: P.args, **named: P.kwargs) -> R:
        with torch.inference_mode(False):
            return function(*map(usable, given), **{key: usable(value) for key, value in named.items()})

    return called


def require_inputs(x: Tensor, y: Tensor, threat: Threat, loss: str | Loss | None = None) -> None:
    """Check the inputs of an attack; waits for the device.

    x: (N, ...) images in [0, 1]; y: (N,) class numbers, int64; for the loss "ce" also probabilities (N, C), for a
    loss of one's own anything (N, ...). TypeError for anything of another kind, ValueError for other values; a warning
    of an L2 ball that holds all images.
    """
    for name, given in (("images", x), ("labels", y)):
        if not isinstance(given, Tensor):
            raise TypeError(f"{name} must be a torch tensor, found {type(given).__name__}")
    if not (hasattr(threat, "projection") and hasattr(threat, "eps")):
        raise TypeError(f"threat must be a threat model such as sglr.threat.Linf(8 / 255), found {threat!r}")
    if not callable(loss):
        _require_labels(y, targets=loss == "ce" and y.is_floating_point())
    if not x.is_floating_point() or x.dim() < 2:
        raise ValueError(f"images must be floating point, (N, C, H, W), found {x.dtype} {tuple(x.shape)}")
    if y.dim() == 0 or len(x) != len(y):
        raise ValueError(f"{len(x)} images and {len(y) if y.dim() else 'a single number as'} labels")
    if not bool(((x >= 0) & (x <= 1)).all()):
        low, high = (float(end) for end in x.detach().aminmax())
        if math.isnan(low):
            raise ValueError("images must lie in [0, 1], found NaN")
        far = low < -_ROUNDED or high > 1 + _ROUNDED
        todo = "normalise in the model, not before it" if far else "clamp(0, 1) removes rounding errors"
        raise ValueError(f"images must lie in [0, 1], found {low:.9g} to {high:.9g}: {todo}")
    if isinstance(threat, L2) and len(x) and threat.eps >= math.sqrt(x[0].numel()):
        warnings.warn(
            f"the ball of L2({threat.eps:g}) holds all images of this size, which are in [0, 1]: radii in 255ths are"
            f" given as L2({threat.eps:g} / 255)",
            stacklevel=4,
        )


def _require_labels(y: Tensor, *, targets: bool) -> None:
    """As ``require_inputs``; ``targets`` (N, C) are allowed, too."""
    if y.dim() == 1 and y.dtype != torch.int64:
        raise TypeError(f"labels (N,) must be int64 class numbers, found {y.dtype}")
    if y.dim() != 1 and not targets:
        todo = "squeeze(1)" if y.dim() == 2 and y.shape[1] == 1 else "argmax(1) of one-hot ones"
        raise TypeError(f"labels must be class numbers (N,), found {y.dtype} {tuple(y.shape)}: {todo}")
    if y.dim() == 1 and bool((y < 0).any()):
        raise ValueError(f"labels must be class numbers from 0 on, found {int(y.min())}")
