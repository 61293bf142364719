"""Memorisation of injected label noise: accuracies on given and true labels over epochs, recovery by refined labels.

An example is noisy when its given label is not its true one, clean otherwise.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sglr.information.checks import Floats, Integers, classes, distributions

Row = dict[str, Any]

ACCURACIES = (
    "noisy/natural_given", "noisy/natural_true", "noisy/pgd_given", "noisy/pgd_true", "clean/natural", "clean/pgd",
)  # fmt: skip
NLL = "train/natural_nll"
REFINED = ("refined/entropy", "refined/recovered", "refined/corrupted")


def curves(history: list[Row], noise_entropy: float | None = None) -> list[Row]:
    """Phase, epoch and the memorisation columns of history.csv that were measured in at least one epoch.

    Accuracies are fractions: of noisy examples on the given and the true label, of clean ones on theirs, natural (eval
    mode) and pgd (the attacked batches as they were trained on). With ``noise_entropy`` in nats, label_information is
    the bound noise_entropy - train/natural_nll on the label information in the weights. Columns that were never
    measured are left out.
    """
    measured = [key for key in (*ACCURACIES, NLL, *REFINED) if any(row.get(key) is not None for row in history)]
    rows = [{key: row.get(key) for key in ("phase", "epoch", *measured)} for row in history]
    if noise_entropy is not None and NLL in measured:
        for row in rows:
            cost = row[NLL]
            row["label_information"] = None if cost is None else noise_entropy - cost
    return rows


def at_epoch(history: list[Row], epoch: int) -> dict[str, float]:
    """The memorisation accuracies measured in one epoch of adversarial training; those not measured are left out.

    Raises ValueError when the history has no such epoch.
    """
    for row in history:
        if row.get("epoch") == epoch:
            return {key: float(row[key]) for key in ACCURACIES if row.get(key) is not None}
    raise ValueError(f"the history has no epoch {epoch}")


def recovery(refined: ArrayLike, given: ArrayLike, true: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Effect of refinement on the labels: ``recovered``, bool per noisy example, and ``corrupted``, bool per clean one.

    refined: (N, C) probabilities; given, true: int (N,). A noisy example is recovered when its most probable class is
    the true one, a clean example corrupted when it is not. Raises ValueError for input of another form.
    """
    rows = distributions(refined, "refined")
    noisy = _labels(given, rows, "given") != _labels(true, rows, "true")
    correct = rows.argmax(1) == np.asarray(true)
    return correct[noisy], ~correct[~noisy]


def _labels(values: ArrayLike, rows: Floats, name: str) -> Integers:
    n, num_classes = rows.shape
    return classes(values, n, num_classes, name)
