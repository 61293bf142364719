"""AutoAttack (Croce and Hein 2020) by its authors' package, pyautoattack."""

import contextlib
import logging
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn

from sglr.attacks.registry import REGISTRY, Attack, AttackOptions
from sglr.threat import L2, Linf, Threat

_LOGGER = "auto-attack"


def autoattack(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    threat: Threat,
    seed: int,
    version: Literal["standard", "plus", "rand"] = "standard",
    batch_size: int = 250,
) -> Tensor:
    """Adversarial examples by AutoAttack; where no attack succeeds, x itself.

    x: (N, C, H, W) in [0, 1]. With fewer than 10 classes the targeted attacks have C - 1 targets, and a warning in the
    log says that this is not the standard version. Raises ValueError below 4 classes (the targeted DLR loss needs
    them), ImportError without pyautoattack.
    """
    try:
        from pyautoattack import AutoAttack
    except ImportError:
        raise ImportError("AutoAttack needs the package pyautoattack: pip install pyautoattack") from None
    norms: dict[type, str] = {Linf: "Linf", L2: "L2"}
    with torch.no_grad():
        classes = model(x[:1]).shape[1]
    if classes < 4:
        raise ValueError(f"AutoAttack's targeted DLR loss needs at least 4 classes, this model has {classes}")
    runner = AutoAttack(
        model, norm=norms[type(threat)], eps=threat.eps, version=version, seed=seed, device=x.device
    )
    if classes < 10:
        runner.apgd_targeted.n_target_classes = runner.fab.n_target_classes = classes - 1
        logging.getLogger(_LOGGER).warning("%d targets instead of 9: not AutoAttack's standard version", classes - 1)
    x_adv, _ = runner.run_standard_evaluation(x, y, batch_size=batch_size)
    return x_adv.detach()


@contextlib.contextmanager
def captured_warnings() -> Iterator[list[str]]:
    """Collect what AutoAttack warns of (randomised or masked defences, unusual logits) instead of printing it."""
    found: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            message = " ".join(record.getMessage().split())
            if record.levelno >= logging.WARNING and message not in found:
                found.append(message)

    logger = logging.getLogger(_LOGGER)
    handler, propagate = Collect(), logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield found
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate


@REGISTRY.register("autoattack")
class AutoAttackOptions(AttackOptions):
    """AutoAttack's version, as in its paper."""

    version: Literal["standard", "plus", "rand"] = "standard"

    def build(self, threat: Threat) -> Attack:
        def attack(model: nn.Module, x: Tensor, y: Tensor, *, seed: int) -> Tensor:
            return autoattack(model, x, y, threat=threat, seed=seed, version=self.version, batch_size=len(x))

        return attack
