"""What training costs in passes through the network: known from the params, and the same on every machine.

Seconds and memory are not: `sglr results --cost` and MLflow have them.
"""

from typing import Any

from sglr.config import Config


def passes(config: Config, method: str) -> dict[str, float] | None:
    """Passes of one training example through the network in one epoch of training, mean over the epochs.

    ``attack_forward``, ``attack_backward``: to make its adversarial image; ``forward``, ``backward``: to learn from
    it, a natural forward that the labels make included; ``forwards`` and ``backwards``: both together. Measurements
    after the epoch are the same for all methods and not in it. None where the method's objective, labels or weights do
    not tell their passes.
    """
    chosen, epochs = config.methods[method].for_seed(config.experiment.seeds[0]), config.train.epochs
    objective, natural = chosen.objective.build(), chosen.labels.natural_forward()
    own = int(objective.attacks) + int(objective.forwards_natural)
    added = chosen.weights.added_passes(own, epochs)
    steps = objective.gradients_for_attack(config.train.attack.steps)
    if steps is None or objective.forwards_for_attack is None or natural is None or added is None:
        return None
    attack_forward = steps + objective.forwards_for_attack
    forward, backward = own + added[0], own + added[1]
    if natural.is_added_to(objective):
        forward += natural.share_of(epochs)
    return {
        "attack_forward": float(attack_forward), "attack_backward": float(steps), "forward": forward,
        "backward": backward, "forwards": attack_forward + forward, "backwards": steps + backward,
    }  # fmt: skip


def cost(config: Config) -> list[dict[str, Any]]:
    """One row per listed method: ``passes``, and all passes as a multiple of the baseline's (``relative``)."""
    baseline = config.report.baseline
    reference = passes(config, baseline) if baseline in config.methods else None
    rows = []
    for method in config.experiment.methods:
        own = passes(config, method)
        relative = _total(own) / _total(reference) if own and reference else None
        rows.append({"method": method, "passes": own, "relative": relative})
    return rows


def _total(passes: dict[str, float]) -> float:
    return passes["forwards"] + passes["backwards"]
