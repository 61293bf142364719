"""The analyses' numbers, of any kind: every scalar in the analyze stage's metrics.json, by run and over seeds."""

from collections.abc import Iterator
from typing import Any

from sglr.evaluation.statistics import mean_std
from sglr.report.study import Study

PARTS = ("best", "last", "run")


def summarise(study: Study) -> list[dict[str, Any]]:
    """One row per part (best, last, or run for the whole run), quantity and method.

    Keys: checkpoint (the part), quantity, method, mean, deviation (None for one seed), seeds (with which it could be
    measured), and runs: per seed its value and the low and high end of its interval, None where the analysis gave none.
    """
    found: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for part in PARTS:
        for item in study.items:
            intervals = item.analysis.get("interval", {}).get(part) or {}
            for quantity, value in scalars(item.analysis.get(part) or {}):
                ends = intervals.get(quantity) or {}
                run = {"seed": item.seed, "value": value, "low": ends.get("low"), "high": ends.get("high")}
                found.setdefault((part, quantity, item.method), []).append(run)
    rows = []
    for (part, quantity, method), runs in found.items():
        mean, deviation = mean_std([run["value"] for run in runs])
        row = {"checkpoint": part, "quantity": quantity, "method": method, "mean": mean, "deviation": deviation}
        rows.append({**row, "seeds": len(runs), "runs": runs})
    return rows


def notes(study: Study) -> dict[str, str]:
    """The notes of the analyses; a note that is not the same for all runs is named after its run."""
    said: dict[str, dict[str, str]] = {}
    for item in study.items:
        for key, note in item.notes.items():
            said.setdefault(str(key), {})[f"{item.method}-{item.seed}"] = str(note)
    found: dict[str, str] = {}
    for key, texts in said.items():
        if len(set(texts.values())) == 1:
            found[key] = next(iter(texts.values()))
        else:
            found.update({f"{key} ({run})": text for run, text in texts.items()})
    return found


def scalars(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """(key, value) for every number in nested dicts, keys joined by '/'; text, lists and nulls are passed over."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from scalars(value, f"{prefix}{key}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}{key}", float(value)
