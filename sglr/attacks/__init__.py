"""Attacks as pure functions: (model, x, y) in [0, 1] -> x_adv in the ball and in [0, 1]."""

from sglr.attacks.accuracy import correct_under, predictions
from sglr.attacks.apgd import apgd
from sglr.attacks.autoattack import autoattack
from sglr.attacks.fgsm import fgsm
from sglr.attacks.mode import attack_mode
from sglr.attacks.pgd import pgd
from sglr.attacks.registry import REGISTRY, Attack, AttackOptions
from sglr.attacks.square import square
from sglr.config import discover

discover(__name__, __path__)

__all__ = [
    "REGISTRY",
    "Attack",
    "AttackOptions",
    "apgd",
    "attack_mode",
    "autoattack",
    "correct_under",
    "fgsm",
    "pgd",
    "predictions",
    "square",
]
