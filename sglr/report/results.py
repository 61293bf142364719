"""The numbers of a study as one plain structure: what results.json holds, and what tables and page are made from.

Keys of results.json (accuracies and differences are fractions, deviations are sample deviations over seeds, null for
one seed; nothing in it is a time):

- ``experiment``: name, methods, seeds, baseline;  ``attacks``: names in order;  ``examples``: how many test examples
  each was run on;  ``data``: the data's meta.json, without counts that no run has
- ``outline``: what was done, by heading: sentences
- ``headline``: attack, verdicts [{method, verdict, sentence, accuracy}], details [sentence], summary
  {sentence, accuracy} and each [sentence] of many methods
- ``accuracy``: per attack and method: best, last, gap as {mean, deviation} (gap also low, high), seeds, examples
- ``same_examples``: where an attack saw fewer examples than the headline's: rows as in ``accuracy`` of the headline's
  attack (``reference``) on those examples
- ``published``: figures of other publications of this setting next to ours (``published.published``)
- ``validation``: per method and input (natural, pgd): best and last as {mean, deviation, seeds}; for choosing settings
- ``comparisons``: per attack, method and quantity (``comparisons.QUANTITIES``): estimate, low, high, seeds, examples
- ``paired``: per attack, method, seed and checkpoint McNemar's test against the baseline (``comparisons.paired``)
- ``transfer``: per checkpoint, model's method and method that its images were made for: accuracy {mean, deviation},
  examples
- ``items``: per attack, method, seed: best_epoch, epochs, examples, gap, best and last, their ends
- ``labels``: per method: what became of the training labels;  ``memorisation``: per method: last values of the history
- ``analysis``: per checkpoint, quantity and method: mean, deviation, seeds, runs [{seed, value, low, high}]
- ``notes`` (of the analyses, by name), ``flags``, ``cautions``: sentences
- ``checks``: what was checked for the flags, by name: sentences
- ``cost``: per method: passes through the network per training example and epoch, relative to the baseline's
- ``provenance``: params, versions, data_sha256, weights (MD5 by item and checkpoint)
"""

from collections.abc import Sequence
from typing import Any

from sglr.config.names import CHECKPOINTS
from sglr.report.analysis import notes, summarise
from sglr.report.cautions import cautions
from sglr.report.comparisons import compare, gap, paired
from sglr.report.cost import cost
from sglr.report.curves import of_saved_model
from sglr.report.headline import headline
from sglr.report.outline import outline
from sglr.report.provenance import provenance
from sglr.report.published import published
from sglr.report.same_examples import same_examples
from sglr.report.spread import over_seeds, spread
from sglr.report.study import RunResult, Study

MEMORISATION = (
    "noisy/natural_given", "noisy/natural_true", "noisy/pgd_given", "noisy/pgd_true", "clean/natural", "clean/pgd",
    "refined/entropy",
)  # fmt: skip


def collect(study: Study) -> dict[str, Any]:
    """Everything the report says in numbers, from a study alone: equal studies give equal results."""
    experiment = study.config.experiment
    results: dict[str, Any] = {
        "format": 1,
        "experiment": {
            "name": experiment.name,
            "methods": list(experiment.methods),
            "seeds": list(experiment.seeds),
            "baseline": study.config.report.baseline,
        },
        "outline": outline(study),
        "attacks": list(study.attacks),
        "examples": {attack: min(len(item.index[attack]) for item in study.items) for attack in study.attacks},
        "accuracy": [_accuracy(study, attack, method) for attack in study.attacks for method in study.methods],
        "same_examples": same_examples(study),
        "validation": [_validation(study, method, key) for method in study.methods for key in ("natural", "pgd")],
        "comparisons": compare(study),
        "paired": paired(study),
        "transfer": _transfer(study),
        "items": [_item(item, attack) for attack in study.attacks for item in study.items],
        "labels": [_labels(study.of(method)) for method in study.methods],
        "memorisation": [_memorisation(study, method) for method in study.methods],
        "analysis": summarise(study),
        "notes": notes(study),
        "data": _data(study),
        "flags": [
            {"method": item.method, "seed": item.seed, "flag": flag}
            for item in study.items
            for flag in _flags(study, item)
        ],
        "checks": _checks(study),
        "cost": cost(study.config),
        "provenance": provenance(study),
    }
    results["published"] = published(study, results["accuracy"])
    results["headline"] = headline(study, results)
    results["cautions"] = cautions(study, results)
    return results


def _data(study: Study) -> dict[str, Any]:
    """What prepare wrote of the data, without a count of wrong labels that no run has."""
    noise = dict(study.meta.get("noise", {}))
    if noise.get("per_seed"):
        noise.pop("flipped", None)  # of the draw of the noise seed alone
    return {**study.meta, "noise": noise}


def headline_numbers(results: dict[str, Any], attacks: Sequence[str]) -> dict[str, Any]:
    """The means that the headline rests on: by method, natural and under ``attacks``, of best and last, and the gap;
    how much smaller than the baseline's the gap is; and, to choose settings by, the means on the validation split."""
    shown = ("natural", *attacks)
    numbers: dict[str, Any] = {method: {} for method in results["experiment"]["methods"]}
    for row in results["accuracy"]:
        if row["attack"] in shown:
            means = {key: row[key]["mean"] for key in ("best", "last", "gap") if row[key]}
            numbers[row["method"]][row["attack"]] = means
    for row in results["comparisons"]:
        if row["attack"] in attacks and row["quantity"] == "gap_reduction":
            numbers[row["method"]][row["attack"]]["gap_reduction"] = row["estimate"]
    for row in results["validation"]:
        means = {key: row[key]["mean"] for key in CHECKPOINTS if row[key]["seeds"]}
        if means:
            numbers[row["method"]].setdefault("validation", {})[row["input"]] = means
    return numbers


def _accuracy(study: Study, attack: str, method: str) -> dict[str, Any]:
    items = study.of(method)
    row: dict[str, Any] = {"attack": attack, "method": method, "best": None, "last": None, "gap": None}
    for checkpoint in study.checkpoints:
        row[checkpoint] = spread([item.evaluation[checkpoint][attack] for item in items])
    bounds = gap(study, method, attack)
    if bounds is not None:
        differences = [item.evaluation["best"][attack] - item.evaluation["last"][attack] for item in items]
        row["gap"] = {**spread(differences), "low": bounds["low"], "high": bounds["high"]}
    return {**row, "seeds": len(items), "examples": min(len(item.index[attack]) for item in items)}


def _validation(study: Study, method: str, key: str) -> dict[str, Any]:
    """Accuracies on the validation split, as training measured them."""
    values: dict[str, list[float | None]] = {"best": [], "last": []}
    for item in study.of(method):
        by_epoch = {row["epoch"]: row.get(f"val/{key}") for row in item.history}
        values["best"].append(by_epoch.get(item.training.get("best_epoch")))
        values["last"].append(by_epoch[max(by_epoch)] if by_epoch else None)
    return {"method": method, "input": key, **{name: over_seeds(found) for name, found in values.items()}}


def _item(item: RunResult, attack: str) -> dict[str, Any]:
    row: dict[str, Any] = {
        "attack": attack,
        "method": item.method,
        "seed": item.seed,
        "best_epoch": item.training.get("best_epoch"),
        "epochs": item.training.get("epochs"),
        "examples": len(item.index[attack]),
    }
    for checkpoint in CHECKPOINTS:
        bounds = item.evaluation.get("interval", {}).get(checkpoint, {}).get(attack, {})
        row[checkpoint] = item.evaluation.get(checkpoint, {}).get(attack)
        row[f"{checkpoint}_low"], row[f"{checkpoint}_high"] = bounds.get("low"), bounds.get("high")
    row["gap"] = None if row["best"] is None else row["best"] - row["last"]
    return row


def _flags(study: Study, item: RunResult) -> list[str]:
    """Flags of an item's evaluation, then those the audit has about it."""
    name = f"{item.method}-{item.seed}/"
    audited = [flag.removeprefix(name) for flag in study.audited if flag.startswith(name)]
    return [*map(str, item.evaluation.get("flags", [])), *audited]


def _checks(study: Study) -> list[str]:
    """The checks that could have raised a flag."""
    sanity = study.config.evaluate.sanity
    looked = [
        "Natural accuracy: against that of always answering the most frequent class.",
        "Attacks: every adversarial image's range and distance.",
        "Audit: every kept image scored again in a new process, and shown to the other methods' models.",
    ]
    if sanity is None:
        return [*looked, "Signs of masked gradients were not looked for (evaluate.sanity is null)."]
    tested = len(study.items[0].outcomes["last/natural"])
    return [
        *looked,
        "Signs of masked gradients, such as attacks weaker than those they should beat, on"
        f" {study.config.evaluate.examples(tested, sanity):,} test examples of every model.",
    ]


def _transfer(study: Study) -> list[dict[str, Any]]:
    found = []
    for checkpoint in study.checkpoints:
        for model in study.methods:
            for source in study.methods:
                asked = (checkpoint, model, source)
                rows = [row for row in study.transfer if (row["checkpoint"], row["model"], row["images_of"]) == asked]
                if rows:
                    accuracy = spread([row["accuracy"] for row in rows])
                    examples = min(row["examples"] for row in rows)
                    found.append(
                        {"checkpoint": checkpoint, "model": model, "images_of": source, "accuracy": accuracy,
                         "examples": examples}
                    )  # fmt: skip
    return found


def _labels(items: list[RunResult]) -> dict[str, Any]:
    """Refined labels after the last epoch, by their largest entry: wrong ones corrected, right ones corrupted."""
    noisy, clean, recovered, corrupted = [], [], [], []
    for item in items:
        given, true, found = item.labels["given"], item.labels["true"], item.labels["refined"]
        noisy.append(int((given != true).sum()))
        clean.append(int((given == true).sum()))
        recovered.append(int(((given != true) & (found == true)).sum()))
        corrupted.append(int(((given == true) & (found != true)).sum()))
    total = [wrong + right for wrong, right in zip(noisy, clean, strict=True)]
    left = [n - r + c for n, r, c in zip(noisy, recovered, corrupted, strict=True)]
    return {
        "method": items[0].method,
        "noisy": over_seeds(noisy),
        "recovered": over_seeds(recovered),
        "recovered_share": over_seeds(_shares(recovered, noisy)),
        "clean": over_seeds(clean),
        "corrupted": over_seeds(corrupted),
        "corrupted_share": over_seeds(_shares(corrupted, clean)),
        "wrong_before": over_seeds(_shares(noisy, total)),
        "wrong_after": over_seeds(_shares(left, total)),
    }


def _shares(parts: list[int], wholes: list[int]) -> list[float | None]:
    return [part / whole if whole else None for part, whole in zip(parts, wholes, strict=True)]


def _memorisation(study: Study, method: str) -> dict[str, Any]:
    finals = [item.history[-1] if item.history else {} for item in study.of(method)]
    columns = {key: [row.get(key) for row in finals if of_saved_model(study, method, key)] for key in MEMORISATION}
    return {"method": method, **{key: over_seeds(column) for key, column in columns.items()}}
