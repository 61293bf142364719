"""Predictions, and which examples stay correct under an attack."""

import torch
from torch import Tensor, nn

from sglr.attacks.registry import Attack


@torch.no_grad()
def predictions(model: nn.Module, x: Tensor, batch_size: int) -> Tensor:
    """Predicted classes (N,) of pictures x (N, C, H, W) in [0, 1], in the mode the model is in."""
    return torch.cat([model(part).argmax(1) for part in x.split(batch_size)])


def correct_under(model: nn.Module, x: Tensor, y: Tensor, attack: Attack, *, seed: int, batch_size: int) -> Tensor:
    """Whether each example (N,) is classified correctly as it is *and* after the attack; bool on x's device.

    Batch b sees the stream of seed + b. Raises RuntimeError if an attack returns something outside [0, 1].
    """
    outcomes = []
    for number, (part, labels) in enumerate(zip(x.split(batch_size), y.split(batch_size), strict=True)):
        x_adv = attack(model, part, labels, seed=seed + number)
        if not bool(((x_adv >= 0) & (x_adv <= 1)).all()):
            raise RuntimeError("the attack returned values outside [0, 1] or NaN; its outcome does not count")
        natural, attacked = predictions(model, part, batch_size), predictions(model, x_adv, batch_size)
        outcomes.append((natural == labels) & (attacked == labels))
    return torch.cat(outcomes)
