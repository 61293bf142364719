"""What people add is tried on two images before the first step, where an error costs nothing."""

from collections.abc import Callable

import torch
from torch import Tensor

from sglr.random import undisturbed

CHANGED = "changes the images that it is given: let it return new ones"


def fault(make: Callable[[Tensor], object], x: Tensor, *, generator: str, of_torch: bool = True) -> str | None:
    """What is wrong with the images that ``make`` makes of x (N, C, H, W) in [0, 1]; None where nothing is found.

    They must be of x's shape, type and device, in [0, 1], and x unchanged. All random numbers go on as if nothing had
    been made; those of NumPy and Python may not be drawn, nor, without ``of_torch``, torch's global ones:
    ``generator`` says what to draw from instead.
    """
    given = x.clone()
    with undisturbed() as disturbed:
        # Torch's own, which every step seeds, are none of the others that it could draw from.
        with torch.random.fork_rng([x.device] if x.is_cuda else []):
            before = _torch_state(x)
            try:
                found = make(given)
            except Exception as error:  # whatever it does
                return f"fails on two training images: {type(error).__name__}: {error}"
            drawn = not torch.equal(before, _torch_state(x))
        if drawn and not of_torch:
            return (
                "draws from torch's global random numbers, by which a training would depend on the number of processes:"
                f" let it draw from {generator}"
            )
        if disturbed():
            return (
                "draws from the global random numbers of NumPy or Python, which a training that is resumed, and several"
                f" processes, do not have in common: let it draw from {generator}"
            )
    if not torch.equal(given, x):
        return CHANGED
    if said := misfit(found, x):
        return said
    assert isinstance(found, Tensor)
    if not bool(found.isfinite().all()):
        return "gives values that are NaN or infinite"
    low, high = found.min().item(), found.max().item()
    return None if low >= 0 and high <= 1 else f"gives values from {low:g} to {high:g}, outside [0, 1]"


def misfit(found: object, x: Tensor) -> str | None:
    """What keeps a value from being images like x (N, C, H, W), as far as it can be told without waiting for the
    device; None where nothing does."""
    if not isinstance(found, Tensor):
        return f"gives {type(found).__name__}, no tensor"
    for what, theirs, ours in (
        ("shape", tuple(found.shape), tuple(x.shape)),
        ("type", found.dtype, x.dtype),
        ("device", found.device, x.device),
    ):
        if theirs != ours:
            return f"gives images of {what} {theirs} for images of {what} {ours}"
    return None


def _torch_state(x: Tensor) -> Tensor:
    """The state of torch's global generators: the CPU's, and that of x's device."""
    states = [torch.get_rng_state()]
    if x.is_cuda:
        states.append(torch.cuda.get_rng_state(x.device))
    return torch.cat(states)
