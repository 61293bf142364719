"""Accuracy as a curve over the radius of the ball."""

from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor, nn

from sglr.attacks import REGISTRY
from sglr.evaluation.chunks import outcomes
from sglr.evaluation.journal import Journal
from sglr.threat import Threat


def sweep(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps_255: Sequence[float],
    *,
    ball: Callable[[float], Threat],
    steps: int,
    seed: int,
    chunk: int,
    journal: Journal,
) -> dict[str, np.ndarray]:
    """Correct predictions (N,) by radius: "0", then each of ``eps_255`` in rising order, under PGD of so many steps.

    ball: the threat model of a radius in [0, 1] units. The smaller balls lie within the larger: an example that is
    broken at one radius counts as broken at every larger one, so the curve never rises.
    """
    correct, _ = outcomes(model, x, y, None, threat=ball(0.0), seed=seed, chunk=chunk, journal=journal.below("0"))
    found = {"0": correct}
    attack = REGISTRY.options("pgd", steps=steps)
    for eps in sorted(eps_255):
        name = f"{eps:g}"
        kept, _ = outcomes(
            model, x, y, attack, threat=ball(eps / 255), seed=seed, chunk=chunk, journal=journal.below(name)
        )
        found[name] = correct = correct & kept
    return found
