"""Several attempts at the same examples, of which each keeps its worst case."""

from collections.abc import Callable

import torch
from torch import Tensor


def worst_case(
    attempt: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], x: Tensor, y: Tensor, restarts: int
) -> Tensor:
    """For each example the first misclassified point that was found, else the one of highest score.

    ``attempt`` gets images (n, C, H, W) and labels (n,) and returns points (n, C, H, W) and their scores (n,), which
    are infinite where they are misclassified: such examples are not attempted again. Where every score is NaN it is x
    itself. The host waits for each attempt's outcome.
    """
    found, score = x.clone(), torch.full_like(x.flatten(1)[:, 0], -torch.inf)
    for _ in range(restarts):
        left = (score != torch.inf).nonzero()[:, 0]
        if len(left) == 0:
            break
        points, scores = attempt(x[left], y[left])
        scores = scores.to(x.dtype)
        better = scores > score[left]
        found[left[better]], score[left[better]] = points[better], scores[better]
    return found
