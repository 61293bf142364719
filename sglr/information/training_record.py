"""What a training run left behind for analysis: its history, its best epoch, and the refined labels it ended with."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sglr.config.names import LABELS
from sglr.data import Split
from sglr.files import FileError, load_state, read_arrays, read_json, read_rows
from sglr.information.checks import Floats, Integers, classes, distributions


@dataclass(frozen=True)
class TrainingRecord:
    """history: rows of history.csv; epochs: number of the last one; best_epoch: None without a validation split.

    refined: labels (n, C) after the last epoch; given, true: labels (n,); labels: the label policy's state with each
    model.
    """

    history: list[dict[str, Any]]
    epochs: int
    best_epoch: int | None
    refined: Floats
    given: Integers
    true: Integers
    labels: dict[str, dict[str, Any]]

    @property
    def noisy(self) -> NDArray[np.bool_]:
        """Bool (n,): the given label is not the true one."""
        different: NDArray[np.bool_] = self.given != self.true
        return different

    def epoch_of(self, checkpoint: str) -> int | None:
        """The epoch after which ``best`` or ``last`` was kept; None when there is no such checkpoint."""
        return self.best_epoch if checkpoint == "best" else self.epochs


def read(folder: Path) -> TrainingRecord:
    """Read what a training folder says, but for its models; FileError that names what is wrong."""
    metrics = read_json(folder / "metrics.json")
    epochs = metrics.get("epochs") if isinstance(metrics, dict) else None
    best = metrics.get("best_epoch") if isinstance(metrics, dict) else None
    if not isinstance(epochs, int) or not isinstance(best, int | None):
        raise FileError(f"{folder / 'metrics.json'} must give epochs, a whole number, and best_epoch, one or null.")
    history = read_rows(folder / "history.csv")
    missing = {epochs, best} - {None} - {row.get("epoch") for row in history}
    if missing:
        raise FileError(f"{folder / 'history.csv'} has no row for epoch {missing.pop()}, which metrics.json speaks of.")
    return TrainingRecord(history, epochs, best, *_labels(folder / "labels.npz"), labels=load_state(folder / LABELS))


def check_same_labels(trained: TrainingRecord, train: Split, folder: Path) -> None:
    """FileError unless the run's labels are those of the training split, example by example."""
    for name, ours, theirs in (("given", trained.given, train.given), ("true", trained.true, train.true)):
        if not np.array_equal(ours, theirs.cpu().numpy()):
            raise FileError(
                f"{folder / 'labels.npz'}: the {name} labels are not those of the prepared data for this seed;"
                " the training belongs to other data. Run it again."
            )


def _labels(path: Path) -> tuple[Floats, Integers, Integers]:
    stored = read_arrays(path)
    try:
        p, given, true = (stored[key] for key in ("p", "given", "true"))
        refined = distributions(p, "p")
        n, num_classes = refined.shape
        return refined, classes(given, n, num_classes, "given"), classes(true, n, num_classes, "true")
    except (ValueError, KeyError) as error:
        raise FileError(f"cannot use {path}: {error}") from None
