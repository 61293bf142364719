"""Predictions, and which examples stay correct under an attack."""

import torch
from torch import Tensor, nn

from sglr.attacks.registry import Attack
from sglr.threat import Threat

# Rounding that float32 adds to a distance, in [0, 1] units: one unit in the last place of a pixel per projection,
# and a part of the radius where a norm over many pixels is taken.
_ABSOLUTE, _RELATIVE = 1e-6, 1e-5


class LogitsError(RuntimeError):
    """A model returned NaN or infinite logits: there is no prediction to compare."""


@torch.no_grad()
def predictions(model: nn.Module, x: Tensor, batch_size: int) -> Tensor:
    """Predicted classes (N,) of images x (N, C, H, W) in [0, 1], in the mode the model is in."""
    return torch.cat([model(part).argmax(1) for part in x.split(batch_size)])


def correct_under(
    model: nn.Module, x: Tensor, y: Tensor, attack: Attack, *, seed: int, batch_size: int, threat: Threat | None = None
) -> Tensor:
    """Whether each example (N,) is classified correctly as it is *and* after the attack; bool on x's device.

    Batch b sees the stream of seed + b. Raises RuntimeError if an attack returns NaN, something outside [0, 1] or, with
    a ``threat``, outside its ball; LogitsError where the model's logits are not finite.
    """
    outcomes = []
    for number, (part, labels) in enumerate(zip(x.split(batch_size), y.split(batch_size), strict=True)):
        # A copy: an attack that works in place would move what its distance is measured from.
        x_adv = attack(model, part.clone(), labels, seed=seed + number)
        require_allowed(x_adv, part, threat)
        natural, attacked = (finite_logits(model, seen, batch_size).argmax(1) for seen in (part, x_adv))
        outcomes.append((natural == labels) & (attacked == labels))
    return torch.cat(outcomes)


@torch.no_grad()
def finite_logits(model: nn.Module, x: Tensor, batch_size: int) -> Tensor:
    """Logits (N, classes); LogitsError, with the number of images, where they are NaN or infinite."""
    found = []
    for part in x.split(batch_size):
        logits = model(part)
        broken = int((~logits.isfinite()).any(1).sum())
        if broken:
            raise LogitsError(f"the logits of {broken} of {len(part)} images are NaN or infinite")
        found.append(logits)
    return torch.cat(found)


def require_allowed(x_adv: Tensor, x: Tensor, threat: Threat | None) -> None:
    """RuntimeError unless x_adv has the shape and type of x (N, ...), and each is finite, in [0, 1] and within its ball
    (and 1e-6 + 1e-5 eps)."""
    if not isinstance(x_adv, Tensor):
        raise RuntimeError(f"the attack returned {type(x_adv).__name__}, no tensor; its outcome does not count")
    if x_adv.shape != x.shape or x_adv.dtype != x.dtype:
        found, wanted = (f"{images.dtype} {tuple(images.shape)}" for images in (x_adv, x))
        raise RuntimeError(f"the attack returned {found} for images {wanted}; its outcome does not count")
    if not bool(((x_adv >= 0) & (x_adv <= 1)).all()):
        raise RuntimeError("the attack returned values outside [0, 1] or NaN; its outcome does not count")
    if threat is None:
        return
    distance = threat.distance(x_adv, x)
    outside = distance > threat.eps + _ABSOLUTE + _RELATIVE * threat.eps
    if bool(outside.any()):
        raise RuntimeError(
            f"{int(outside.sum())} of {len(x)} perturbations are longer than eps {threat.eps:.6g} (the longest"
            f" {float(distance.max()):.6g}); the attack's outcome does not count"
        )
