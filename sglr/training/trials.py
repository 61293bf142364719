"""What people add is tried on two images before the first step, where an error costs nothing."""

from collections.abc import Callable

import torch
from torch import Tensor

from sglr.random import undisturbed


def fault(make: Callable[[Tensor], object], x: Tensor, *, generator: str) -> str | None:
    """What is wrong with the images that ``make`` makes of x (N, C, H, W) in [0, 1]; None where nothing is found.

    They must be of x's shape, type and device, in [0, 1], and x unchanged. All random numbers go on as if nothing had
    been made; those of NumPy and Python may not be drawn: ``generator`` says what to draw from instead.
    """
    given = x.clone()
    with undisturbed() as disturbed:
        # Torch's own, which every step seeds, are none of the others that it could draw from.
        with torch.random.fork_rng([x.device] if x.is_cuda else []):
            try:
                found = make(given)
            except Exception as error:  # whatever it does
                return f"fails on two training images: {type(error).__name__}: {error}"
        if disturbed():
            return (
                "draws from the global random numbers of NumPy or Python, which a training that is resumed, and several"
                f" processes, do not have in common: let it draw from {generator}"
            )
    if not torch.equal(given, x):
        return "changes the images that it is given: let it return new ones"
    if not isinstance(found, Tensor):
        return f"gives {type(found).__name__}, no tensor"
    for what, theirs, ours in (
        ("shape", tuple(found.shape), tuple(x.shape)),
        ("type", found.dtype, x.dtype),
        ("device", found.device, x.device),
    ):
        if theirs != ours:
            return f"gives images of {what} {theirs} for images of {what} {ours}"
    if not bool(found.isfinite().all()):
        return "gives values that are NaN or infinite"
    low, high = found.min().item(), found.max().item()
    return None if low >= 0 and high <= 1 else f"gives values from {low:g} to {high:g}, outside [0, 1]"
