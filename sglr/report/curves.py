"""Histories side by side: one quantity per epoch, method and seed; and the wide tables that DVC plots."""

import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sglr.report.study import Study

# Measured on the batches that training attacks, with the weights of the step.
IN_TRAINING_STEPS = ("train/pgd", "noisy/pgd_given", "noisy/pgd_true", "clean/pgd")


@dataclass(frozen=True)
class Curve:
    """One quantity of one method: epochs (E,), values (seeds, E) with NaN where nothing was measured."""

    epochs: np.ndarray
    values: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """Mean over the seeds that were measured (E,); NaN where none was."""
        known = ~np.isnan(self.values)
        total, count = np.where(known, self.values, 0).sum(0), known.sum(0)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)

    def __bool__(self) -> bool:
        return not np.isnan(self.values).all()


def curve(study: Study, method: str, quantity: str) -> Curve:
    """A history column of a method, over the epochs any of its seeds has; warm-up epochs come first.

    Nothing of a quantity that is not of the saved model (``of_saved_model``).
    """
    found = from_rows([item.history for item in study.of(method)], quantity)
    if of_saved_model(study, method, quantity):
        return found
    return replace(found, values=np.full_like(found.values, np.nan))


def of_saved_model(study: Study, method: str, quantity: str) -> bool:
    """Whether a history column is of the weights that are saved: not what steps measure where others are trained."""
    return quantity not in IN_TRAINING_STEPS or study.config.methods[method].weights.trains_saved_weights


def from_rows(histories: list[list[dict[str, Any]]], quantity: str) -> Curve:
    """A column of several seeds' rows, each of which has an ``epoch``."""
    epochs = sorted({row["epoch"] for history in histories for row in history})
    column = {epoch: position for position, epoch in enumerate(epochs)}
    values = np.full((len(histories), len(epochs)), np.nan)
    for seed, history in enumerate(histories):
        for row in history:
            value = row.get(quantity)
            values[seed, column[row["epoch"]]] = np.nan if value is None else value
    return Curve(np.array(epochs, dtype=np.int64), values)


def quantities(study: Study) -> list[str]:
    """The measured columns of the histories, in their order."""
    columns = dict.fromkeys(key for item in study.items for row in item.history for key in row)
    return [key for key in columns if key not in ("phase", "epoch")]


def warmup(study: Study, methods: Collection[str]) -> tuple[int, int] | None:
    """First and last epoch of the warm-up that any of the methods begins with, or None when none does."""
    items = [item for item in study.items if item.method in methods]
    epochs = [row["epoch"] for item in items for row in item.history if row.get("phase") == "warmup"]
    return (min(epochs), max(epochs)) if epochs else None


def label_starts(study: Study) -> dict[str, int]:
    """Method -> first epoch in which its label policy does more than hand out the given labels, where it has one."""
    starts = {method: getattr(study.config.methods[method].labels, "start_epoch", None) for method in study.methods}
    return {method: start for method, start in starts.items() if start is not None}


def wide(study: Study, quantity: str) -> list[dict[str, Any]]:
    """One row per epoch in which it was measured, one column per method: the mean over seeds of a quantity.

    NaN where it was not measured: DVC draws no plot at all when a method has no column, and 0 where a cell is empty.
    """
    rows: dict[int, dict[str, Any]] = {}
    for method in study.methods:
        found = curve(study, method, quantity)
        for epoch, mean in zip(found.epochs.tolist(), found.mean.tolist(), strict=True):
            if not np.isnan(mean):
                rows.setdefault(epoch, {"epoch": epoch, **dict.fromkeys(study.methods, math.nan)})[method] = mean
    return [rows[epoch] for epoch in sorted(rows)]
