"""What training costs in passes through the network: known from the params, and the same on every machine.

Seconds and memory are not: `sglr results --cost` and MLflow have them.
"""

from typing import Any

from sglr.config import Config

# Labels that look at the natural pictures in every step, from which epoch on ("start_epoch" of their options).
_LOOK_AT_NATURAL = ("refinement", "ensembling", "self_adaptive")
# Labels whose look comes before the attack, so that no prediction of the objective can be used.
_BEFORE = ("ensembling",)


def passes(config: Config, method: str) -> dict[str, float] | None:
    """Passes of one training example through the network in one epoch of training, mean over the epochs.

    ``attack_forward``, ``attack_backward``: to make its adversarial picture; ``forward``, ``backward``: to learn from
    it; ``forwards`` and ``backwards``: both together. Measurements after the epoch are the same for all methods and not
    in it. None for a method with components that this does not know.
    """
    chosen, epochs = config.methods[method], config.train.epochs
    names = (chosen.objective.name, chosen.labels.name, chosen.weights.name)
    known = (
        ("at", "trades", "mart", "standard"),
        ("hard", "smoothing", *_LOOK_AT_NATURAL),
        ("none", "awp", "ema", "swa"),
    )
    if any(name not in some for name, some in zip(names, known, strict=True)):
        return None
    objective = chosen.objective.build()
    steps = config.train.attack.steps if objective.attacks else 0
    own = int(objective.attacks) + int(objective.forwards_natural)
    forward, backward = float(own), float(own)
    if names[1] in _LOOK_AT_NATURAL and (names[1] in _BEFORE or not objective.forwards_natural):
        forward += _share(chosen.labels, epochs)
    if names[2] == "awp":
        forward, backward = (once + own * _share(chosen.weights, epochs) for once in (forward, backward))
    if names[2] in ("ema", "swa") and chosen.weights.model_dump().get("buffers") == "recompute":
        forward += _share(chosen.weights, epochs)
    # TRADES compares with the natural prediction, made once.
    attack_forward = steps + int(names[0] == "trades")
    return {
        "attack_forward": float(attack_forward), "attack_backward": float(steps), "forward": forward,
        "backward": backward, "forwards": attack_forward + forward, "backwards": steps + backward,
    }  # fmt: skip


def _share(options: Any, epochs: int) -> float:
    """The share of the epochs from ``start_epoch`` on."""
    start: int = getattr(options, "start_epoch", 1)
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
