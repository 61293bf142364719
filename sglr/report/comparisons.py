"""Differences between methods with intervals over seeds and test examples.

Every quantity is a sum, per test example, of outcomes (1 correct, 0 not) of the method's and the baseline's best and
last checkpoints of the same seed, so the examples stay paired.
"""

from typing import Any

import numpy as np
from tqdm import tqdm

from sglr import files
from sglr.evaluation.hierarchical import hierarchical_bootstrap
from sglr.evaluation.statistics import mcnemar
from sglr.report.study import RunResult, Study

# quantity: (weights of the method's checkpoints, weights of the baseline's)
QUANTITIES: dict[str, tuple[dict[str, int], dict[str, int]]] = {
    "gap_reduction": ({"best": -1, "last": 1}, {"best": 1, "last": -1}),
    "last_gain": ({"last": 1}, {"last": -1}),
    "last_over_best": ({"last": 1}, {"best": -1}),
    "best_gain": ({"best": 1}, {"best": -1}),
}
GAP = {"best": 1, "last": -1}


def compare(study: Study) -> list[dict[str, Any]]:
    """One entry per method other than the baseline, attack and quantity.

    Keys: method, baseline, quantity, attack, estimate, low, high (fractions), seeds, examples (of one seed). Empty when
    the baseline is not among the methods listed. Quantities that need a best epoch are left out when there is none.
    """
    baseline = study.config.report.baseline
    if baseline not in study.methods:
        return []
    wanted = [
        (attack, method, quantity)
        for attack in study.attacks
        for method in study.methods
        if method != baseline
        for quantity, weights in QUANTITIES.items()
        if study.has_best or not any("best" in side for side in weights)
    ]
    rows = []
    for attack, method, quantity in tqdm(wanted, desc="report: intervals", unit="row", disable=None, leave=False):
        own, others = QUANTITIES[quantity]
        row = {"method": method, "baseline": baseline, "quantity": quantity, "attack": attack}
        rows.append({**row, **_estimate(study, attack, method, own, baseline, others)})
    return rows


def paired(study: Study) -> list[dict[str, Any]]:
    """McNemar's exact test of every method against the baseline of the same seed, on the same test examples.

    Keys: attack, method, baseline, seed, checkpoint, only_method and only_baseline (examples only that one classifies
    correctly), p (two-sided). It compares two trained models, whatever another seed would have given.
    """
    baseline = study.config.report.baseline
    if baseline not in study.methods:
        return []
    found = []
    for attack in study.attacks:
        for method in study.methods:
            for item, reference in zip(study.of(method), study.of(baseline), strict=True):
                for checkpoint in study.checkpoints if method != baseline else ():
                    key = f"{checkpoint}/{attack}"
                    test = mcnemar(item.outcomes[key], reference.outcomes[key])
                    found.append({
                        "attack": attack, "method": method, "baseline": baseline, "seed": item.seed,
                        "checkpoint": checkpoint, "only_method": test.only_a, "only_baseline": test.only_b, "p": test.p,
                    })  # fmt: skip
    return found


def gap(study: Study, method: str, attack: str) -> dict[str, Any] | None:
    """The robust overfitting gap best - last of one method: estimate, low, high, seeds, examples; None without best."""
    return _estimate(study, attack, method, GAP, method, {}) if study.has_best else None


def _estimate(
    study: Study, attack: str, method: str, own: dict[str, int], baseline: str, others: dict[str, int]
) -> dict[str, Any]:
    contrasts = []
    for item, reference in zip(study.of(method), study.of(baseline), strict=True):
        if not np.array_equal(item.index[attack], reference.index[attack]):
            raise files.FileError(
                f"{item.method}-{item.seed} and {reference.method}-{reference.seed} were attacked by {attack} on"
                " different test examples and cannot be compared: run the evaluate stage again for both."
            )
        contrasts.append(_weighted(item, attack, own) + _weighted(reference, attack, others))
    report = study.config.report
    shared = all(np.array_equal(item.index[attack], study.items[0].index[attack]) for item in study.of(method))
    found = hierarchical_bootstrap(contrasts, resamples=report.bootstrap, seed=report.seed, shared_examples=shared)
    # What shares of examples can be at most: few seeds that differ stretch an interval beyond it.
    weights = [*own.values(), *others.values()]
    low, high = (float(sum(w for w in weights if w * sign > 0)) for sign in (-1, 1))
    return {
        "estimate": found.point, "low": max(low, found.low), "high": min(high, found.high),
        "seeds": len(contrasts), "examples": min(len(contrast) for contrast in contrasts),
    }  # fmt: skip


def _weighted(item: RunResult, attack: str, weights: dict[str, int]) -> np.ndarray:
    total = np.zeros(len(item.index[attack]))
    for checkpoint, weight in weights.items():
        total += weight * item.outcomes[f"{checkpoint}/{attack}"]
    return total
