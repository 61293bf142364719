"""What training costs in passes through the network: known from the params, and the same on every machine.

Seconds and memory are not: `sglr results --cost` and MLflow have them.
"""

from typing import Any

from sglr.config import Config

_OBJECTIVES = ("at", "trades", "mart", "standard")
_WEIGHTS = ("none", "awp", "ema", "swa")


def passes(config: Config, method: str) -> dict[str, float] | None:
    """Passes of one training example through the network in one epoch of training, mean over the epochs.

    ``attack_forward``, ``attack_backward``: to make its adversarial image; ``forward``, ``backward``: to learn from
    it, a natural forward that the labels make included; ``forwards`` and ``backwards``: both together. Measurements
    after the epoch are the same for all methods and not in it. None for a method with an objective or weights that this
    does not know, or with labels that do not say when they forward natural images.
    """
    chosen, epochs = config.methods[method], config.train.epochs
    natural = chosen.labels.natural_forward()
    if chosen.objective.name not in _OBJECTIVES or chosen.weights.name not in _WEIGHTS or natural is None:
        return None
    objective = chosen.objective.build()
    steps = config.train.attack.steps if objective.attacks else 0
    own = int(objective.attacks) + int(objective.forwards_natural)
    forward, backward = float(own), float(own)
    if natural.is_added_to(objective):
        forward += _share(natural, epochs)
    if chosen.weights.name == "awp":
        forward, backward = (once + own * _share(chosen.weights, epochs) for once in (forward, backward))
    if getattr(chosen.weights, "buffers", None) == "recompute":
        forward += _share(chosen.weights, epochs)
    # TRADES compares with the natural prediction, made once.
    attack_forward = steps + int(chosen.objective.name == "trades")
    return {
        "attack_forward": float(attack_forward), "attack_backward": float(steps), "forward": forward,
        "backward": backward, "forwards": attack_forward + forward, "backwards": steps + backward,
    }  # fmt: skip


def _share(policy: Any, epochs: int) -> float:
    """The share of the epochs from ``start_epoch`` on."""
    start: int = getattr(policy, "start_epoch", 1)
    return max(0, epochs - start + 1) / epochs


def cost(config: Config) -> list[dict[str, Any]]:
    """One row per listed method: ``passes``, and all passes as a multiple of the baseline's (``relative``)."""
    baseline = config.report.baseline
    reference = passes(config, baseline) if baseline in config.methods else None
    rows = []
    for method in config.experiment.methods:
        found = passes(config, method)
        relative = _total(found) / _total(reference) if found and reference else None
        rows.append({"method": method, "passes": found, "relative": relative})
    return rows


def _total(found: dict[str, float]) -> float:
    return found["forwards"] + found["backwards"]
