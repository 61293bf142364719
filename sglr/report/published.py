"""Figures of other people's publications beside ours, where data set, model and norm are the same."""

from functools import cache
from pathlib import Path
from typing import Any

import yaml

from sglr.report.study import Study

_FILE = Path(__file__).with_name("published.yaml")
# What a publication may state: key there, what it is called here.
_METRICS = ("natural", "robust", "pgd10", "autoattack")
# Names of methods that are called otherwise there.
_METHODS = {"at_label_smoothing": "at_smoothing"}
_EPS_255 = {"linf": 8.0, "l2": 128.0}
# How all publications with checkpoints of their own trained.
_EPOCHS, _ATTACK_STEPS, _REFINES_FROM = 200, 10, 90
_PICTURES = {"cifar10": 50_000, "cifar100": 50_000, "svhn": 73_257}
_AUGMENTED = ("cifar10", "cifar100")


@cache
def _known() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
    return found


def published(study: Study, accuracy: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per published figure of this setting: ours (mean, deviation) where the same thing was measured.

    accuracy: the rows of results.json. Accuracies are fractions. ``mismatch`` says in words what differs from ours;
    figures of methods that are not listed are left out, those of a leaderboard, there for orientation, are not.
    """
    config, found = study.config, _known()
    setting = (config.data.source.name, config.model.name, config.threat.norm)
    if config.data.noise.kind != "none":
        return []
    rows = []
    for entry in found["results"]:
        if (entry["dataset"], entry["model"], entry["norm"]) != setting:
            continue
        method = _METHODS.get(entry["method"], entry["method"])
        foreign = "checkpoint" not in entry  # a leaderboard's
        if not foreign and method not in study.methods:
            continue
        for metric in _METRICS:
            if metric in entry:
                rows.append(_row(study, accuracy, entry, method, metric, foreign, found["sources"][entry["source"]]))
    return rows


def _row(
    study: Study, accuracy: list[dict[str, Any]], entry: dict[str, Any], method: str, metric: str, foreign: bool,
    source: str,
) -> dict[str, Any]:  # fmt: skip
    checkpoint = entry.get("checkpoint", "last")
    attack = _attack(study, metric)
    ours = next((row[checkpoint] for row in accuracy if (row["attack"], row["method"]) == (attack, method)), None)
    mismatch = []
    if foreign:
        mismatch.append("another method")
    elif ours is None:
        mismatch.append("not measured here")
    if metric == "robust":
        mismatch.append(f"their attack is not stated{f', ours is {attack}' if ours else ''}")
    if study.config.threat.eps_255 != _EPS_255[study.config.threat.norm]:
        mismatch.append(
            f"our eps is {study.config.threat.eps_255:g}/255, theirs {_EPS_255[study.config.threat.norm]:g}/255"
        )
    if not foreign:
        mismatch += _training(study, method)
    if entry["source"] == "rice2020" and checkpoint == "best":
        mismatch.append("their best epoch was chosen on the test set")
    examples = next((row["examples"] for row in accuracy if row["attack"] == attack), None)
    whole = study.meta.get("sizes", {}).get("test")
    if ours and whole and examples != whole:
        mismatch.append(f"ours on {examples:,} of {whole:,} test pictures")
    return {
        "method": method,
        "checkpoint": checkpoint if not foreign else None,
        "metric": metric,
        "published": entry[metric] / 100,
        "ours": ours,
        "source": source,
        "mismatch": "; ".join(mismatch),
    }


def _training(study: Study, method: str) -> list[str]:
    """What differs in how the model was trained."""
    config, sizes = study.config, study.meta.get("sizes", {})
    whole, found = _PICTURES[config.data.source.name], []
    if config.train.epochs != _EPOCHS:
        found.append(f"our training has {config.train.epochs} epochs, theirs {_EPOCHS}")
    if config.train.attack.steps != _ATTACK_STEPS:
        found.append(f"our attack in training takes {config.train.attack.steps} steps, theirs {_ATTACK_STEPS}")
    if sizes.get("train", whole) != whole:
        found.append(f"ours trained on {sizes['train']:,} of {whole:,} pictures")
    augmented = config.data.augment.crop_padding > 0 and config.data.augment.flip
    if config.data.source.name in _AUGMENTED and not augmented:
        found.append("ours without their random crops and flips")
    start = getattr(config.methods[method].labels, "start_epoch", _REFINES_FROM)
    if start != _REFINES_FROM:
        found.append(f"our labels change from epoch {start}, theirs {_REFINES_FROM}")
    return found


def _attack(study: Study, metric: str) -> str | None:
    """Our attack that is the published metric, or stands nearest to it."""
    options = study.config.evaluate.attacks
    if metric == "natural":
        return "natural"
    if metric == "autoattack":
        standard = [name for name, found in options.items() if getattr(found, "version", None) == "standard"]
        return standard[0] if standard else None
    found = [
        name for name, attack in options.items() if attack.name == "pgd" and (metric == "robust" or _pgd10(attack))
    ]
    return found[0] if found else None


def _pgd10(attack: Any) -> bool:
    """Whether a PGD is theirs: ten steps on the cross-entropy from one start."""
    return (attack.steps, attack.restarts, attack.loss) == (10, 1, "ce")
