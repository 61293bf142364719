"""Accuracy as a curve over the radius of the ball."""

from collections.abc import Sequence

import numpy as np

from sglr.attacks import REGISTRY, AttackOptions
from sglr.config.measurements import Sweep
from sglr.evaluation.outcome import Outcome

Bools = np.ndarray


def radii(section: Sweep) -> dict[str, tuple[AttackOptions | None, float]]:
    """What is measured: by radius in 255ths as text, "0" first and then rising, the attack and the radius in [0, 1]."""
    attack = REGISTRY.options("pgd", steps=section.steps)
    return {"0": (None, 0.0)} | {f"{eps:g}": (attack, eps / 255) for eps in sorted(section.eps_255)}


def curve(found: Sequence[Outcome]) -> list[Bools]:
    """Correct predictions (N,) at each radius, from the outcomes in rising order.

    The smaller balls lie within the larger: an example that is broken at one radius counts as broken at every larger
    one, so the curve never rises.
    """
    return list(np.logical_and.accumulate([outcome.correct for outcome in found]))
