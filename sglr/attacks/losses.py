"""Losses that attacks maximise: one number per example, higher where the model does worse."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Loss = Callable[[Tensor, Tensor], Tensor]

FEWEST_FOR_DLR = 3
# Keeps the ratio of the DLR loss finite where the logits are equal; Croce and Hein's value.
_SMALL = 1e-12


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy per example (N,)."""
    return F.cross_entropy(logits, y, reduction="none")


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """max_{c != y} z_c - z_y per example (N,), positive where misclassified (Carlini and Wagner 2017)."""
    own = F.one_hot(y, logits.shape[1]).bool()
    return logits.masked_fill(own, -torch.inf).amax(1) - logits.gather(1, y[:, None])[:, 0]


def dlr(logits: Tensor, y: Tensor) -> Tensor:
    """Difference of logits ratio per example (N,), the untargeted form (Croce and Hein 2020, equation 6).

    The margin over the distance from the largest to the third largest logit: unchanged when logits are shifted or
    scaled. Raises ValueError below 3 classes (only the targeted form needs 4).
    """
    if logits.shape[1] < FEWEST_FOR_DLR:
        raise ValueError(f"the DLR loss needs at least {FEWEST_FOR_DLR} classes, this model has {logits.shape[1]}")
    largest = logits.topk(3, dim=1).values
    return margin(logits, y) / (largest[:, 0] - largest[:, 2] + _SMALL)


LOSSES: dict[str, Loss] = {"ce": cross_entropy, "cw": margin, "dlr": dlr}


def misclassified(logits: Tensor, y: Tensor) -> Tensor:
    """Which examples (N,) are, by labels y, int64 (N,); none by targets of another form, which name no class."""
    if y.dim() != 1 or y.dtype != torch.int64:
        return torch.zeros(len(y), dtype=torch.bool, device=y.device)
    return logits.argmax(1) != y


def single_logit(logits: Tensor) -> str | None:
    """What is wrong with logits (N,) or (N, 1), and what to do; None for any others."""
    if logits.dim() not in (1, 2) or logits[:1].numel() != 1:
        return None
    return (
        "the model gives a single logit per image, and attacks compare one logit per class: wrap it so that it gives"
        " torch.cat([torch.zeros_like(z), z], 1), where z (N, 1) is its logit before any sigmoid; class 1 then has the"
        " probability sigmoid(z)"
    )


def require_known(y: Tensor, logits: Tensor) -> None:
    """ValueError for what is no logits (N, classes) or a single one per image, for labels y (N,) beyond the classes,
    and for targets y that are not (N, classes); waits for the device, which such labels might break."""
    if not isinstance(logits, Tensor):
        raise ValueError(f"the model gives no logits (N, classes), but {type(logits).__name__}: wrap it")
    if single := single_logit(logits):
        raise ValueError(single)
    if y.dim() != 1:
        if y.shape != logits.shape:
            raise ValueError(f"targets {tuple(y.shape)} for logits {tuple(logits.shape)}")
    elif len(y) and int(y.max()) >= logits.shape[1]:
        raise ValueError(f"there is a label {int(y.max())}, but the model gives {logits.shape[1]} logits")


def misfit(loss: str, num_classes: int) -> str | None:
    """Why the loss of that name cannot be computed for ``num_classes``; None where it can."""
    if loss == "dlr" and num_classes < FEWEST_FOR_DLR:
        return f"the DLR loss needs at least {FEWEST_FOR_DLR} classes, there are {num_classes}"
    return None


def named(loss: str | Loss) -> Loss:
    """The loss of that name, or the function itself; ValueError for anything else."""
    if callable(loss):
        return loss
    if loss not in LOSSES:
        raise ValueError(f"unknown loss {loss!r}; known: {', '.join(LOSSES)}, or a function (logits, y) -> (N,)")
    return LOSSES[loss]


def criterion(loss: str | Loss) -> Loss:
    """``named(loss)`` for one attack. ValueError where it is not one number per example, and, at the first call, for
    what ``require_known`` refuses, which only a loss of one's own may understand."""
    asked, known = named(loss), callable(loss)

    def checked(logits: Tensor, y: Tensor) -> Tensor:
        nonlocal known
        if not known:
            require_known(y, logits)
        known = True
        values = asked(logits, y)
        if values.shape != y.shape[:1]:
            raise ValueError(f"the loss must be one number per example, ({len(y)},), found {tuple(values.shape)}")
        return values

    return checked
