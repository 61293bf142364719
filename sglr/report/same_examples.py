"""The headline's attack on the examples of an attack that saw only some of them: a like-for-like comparison."""

from typing import Any

import numpy as np

from sglr.report.headline import headline_attack
from sglr.report.spread import spread
from sglr.report.study import RunResult, Study


def same_examples(study: Study) -> list[dict[str, Any]]:
    """One entry per attack that saw some of the headline attack's examples only, and method.

    Keys: attack, reference (the headline's attack), method, best, last, gap as {mean, deviation} of the reference's
    accuracy on the attack's examples (best and gap None without a best epoch), seeds, examples.
    """
    reference = headline_attack(study)
    rows = []
    for attack in study.config.evaluate.attacks:
        for method in study.methods:
            items = study.of(method)
            if all(_sees_less(item, attack, reference) for item in items):
                row = {"attack": attack, "reference": reference, "method": method}
                examples = min(len(item.index[attack]) for item in items)
                rows.append({**row, **_accuracy(study, items, attack, reference), "examples": examples})
    return rows


def _sees_less(item: RunResult, attack: str, reference: str) -> bool:
    own, others = item.index[attack], item.index[reference]
    return len(own) < len(others) and bool(np.isin(own, others).all())


def _accuracy(study: Study, items: list[RunResult], attack: str, reference: str) -> dict[str, Any]:
    found: dict[str, list[float]] = {
        checkpoint: [
            float(item.outcomes[f"{checkpoint}/{reference}"][np.isin(item.index[reference], item.index[attack])].mean())
            for item in items
        ]
        for checkpoint in study.checkpoints
    }
    if study.has_best:
        found["gap"] = [best - last for best, last in zip(found["best"], found["last"], strict=True)]
    spreads = {name: spread(values) for name, values in found.items()}
    return {"best": None, "last": None, "gap": None, **spreads, "seeds": len(items)}
