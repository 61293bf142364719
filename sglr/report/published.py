"""Published figures next to ours, where data set, model and norm are the same."""

from functools import cache
from pathlib import Path
from typing import Any

import yaml

from sglr.config import Config
from sglr.report.curves import of_saved_model
from sglr.report.published_differences import beyond_keys, differences
from sglr.report.spread import spread
from sglr.report.study import Study

_FILE = Path(__file__).with_name("published.yaml")
# What a publication may state: key there, what it is called here.
_METRICS = ("natural", "robust", "pgd10", "autoattack", "train_robust")
# Names of methods that have other names there.
_METHODS = {"at_label_smoothing": "at_smoothing"}


@cache
def _known() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
    return found


def published(study: Study, accuracy: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per published figure of this setting: ours (mean, deviation) where the same thing was measured.

    accuracy: the rows of results.json. Accuracies are fractions. ``mismatch`` says what differs from ours;
    figures of methods that are not listed are left out, those of a leaderboard, there for orientation, are not.
    """
    config, found = study.config, _known()
    setting = (config.data.source.name, config.model.name, config.threat.norm)
    if config.data.noise.kind != "none" or study.wrong_labels:
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
    settings = _settings(entry)
    stated = {key: value for setting in settings for key, value in setting.get("params", {}).items()}
    attack = None if metric == "train_robust" else _attack(study, metric, stated)
    if metric == "train_robust":
        ours = _training_accuracy(study, method)
    else:
        ours = next((row[checkpoint] for row in accuracy if (row["attack"], row["method"]) == (attack, method)), None)
    mismatch = []
    if foreign:
        mismatch.append("another method")
    elif ours is None:
        mismatch.append("not measured here")
    if metric == "robust":
        mismatch.append(f"their attack is not stated (their code has PGD-10){f', ours is {attack}' if ours else ''}")
    if metric == "train_robust" and ours:
        mismatch.append("ours is of the last epoch's training batches, as they were attacked")
    different = differences(study.config, method, stated)
    mismatch += [different] if different else []
    mismatch += [] if foreign else beyond_keys(study.config, method)
    mismatch += [setting["also"] for setting in settings if "also" in setting]
    examples = next((row["examples"] for row in accuracy if row["attack"] == attack), None)
    whole = study.meta.get("sizes", {}).get("test")
    if ours and whole and examples not in (None, whole):
        mismatch.append(f"ours on {examples:,} of {whole:,} test images")
    return {
        "method": method,
        "checkpoint": checkpoint if not foreign else None,
        "metric": metric,
        "published": entry[metric] / 100,
        "ours": ours,
        "source": source,
        "mismatch": "; ".join(mismatch),
    }


def _training_accuracy(study: Study, method: str) -> dict[str, Any] | None:
    """Accuracy under attack at the end of training: {mean, deviation}; None for a method that attacks nothing, or whose
    steps attack other weights than are saved."""
    if not of_saved_model(study, method, "train/pgd"):
        return None
    rows = [row for item in study.of(method) for row in item.history[-1:]]
    found = [row["train/pgd"] for row in rows if row.get("train/pgd") is not None]
    return spread(found) if found else None


def _settings(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """What is known of the training behind a figure, later items before earlier ones."""
    return [
        setting
        for setting in _known()["settings"]
        if all(entry.get(key) in values for key, values in setting["of"].items())
    ]


def _attack(study: Study, metric: str, stated: dict[str, Any]) -> str | None:
    """Our attack that is the published metric, or is nearest to it."""
    options = study.config.evaluate.attacks
    if metric == "natural":
        return "natural"
    if metric == "autoattack":
        standard = [name for name, found in options.items() if getattr(found, "version", None) == "standard"]
        return standard[0] if standard else None
    every = [name for name, attack in options.items() if attack.name == "pgd"]
    theirs = [name for name in every if _pgd10(options[name], study.config, stated)]
    # Where no attack is stated: the one robustness test in their code is this, too.
    found = theirs or (every if metric == "robust" else [])
    return found[0] if found else None


def _pgd10(attack: Any, config: Config, stated: dict[str, Any]) -> bool:
    """Whether a PGD matches theirs: ten steps, as long as in training, on the cross-entropy from one start."""
    length = config.threat.eps_255 / 4 if attack.step_size_255 is None else attack.step_size_255
    as_long = length == stated.get("train.attack.step_size_255", length)
    return as_long and (attack.steps, attack.restarts, attack.loss) == (10, 1, "ce")
