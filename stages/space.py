"""The room on the disk that a training will need, looked at before it starts."""

import shutil
from collections.abc import Callable
from pathlib import Path

from sglr import config, files, models

_FLOAT = 4
# Of the weights: the network, its momentum, the best so far, an average.
_IN_A_SNAPSHOT = 4
# Two are kept while a third is written.
_SNAPSHOTS = 3
# best and last.
_MODELS = 2
# History, logs, descriptions.
_SMALL_FILES = 2**21
_TRACED = 64
# Tables of one probability per example and class: the targets, hard and refined.
_TABLES = 2


def needed(settings: config.Config, data: Path) -> tuple[int, int]:
    """Bytes that one training writes, at most: its snapshots and outputs; and with DVC's copy of the outputs."""
    meta = files.read_json(data / "meta.json")
    classes, shape = int(meta["num_classes"]), tuple(meta["shape"])
    model = models.from_spec(models.spec(settings.model, num_classes=classes, shape=shape), device="meta")
    weights = sum(value.numel() for value in model.state_dict().values()) * _FLOAT
    table = int(meta["sizes"]["train"]) * classes * _FLOAT
    kept = len(settings.train.keep_epochs) * weights
    trace = settings.train.epochs * _TRACED * classes * _FLOAT
    outputs = _MODELS * weights + kept + table + trace
    snapshots = _SNAPSHOTS * (_IN_A_SNAPSHOT * weights + _TABLES * table + trace) + kept
    return snapshots + outputs + _SMALL_FILES, snapshots + 2 * outputs + _SMALL_FILES


def require(settings: config.Config, data: Path, folder: Path, warn: Callable[[str], object]) -> None:
    """FileError when the disk under ``folder`` has less room than a training writes; a warning when DVC's copy of its
    outputs may find none."""
    own, with_copies = needed(settings, data)
    free = shutil.disk_usage(folder).free
    said = f"{free / 1e6:,.0f} MB are free in {folder.absolute()}"
    if free < own:
        raise files.FileError(f"{said}; this training writes up to {own / 1e6:,.0f} MB. Make room, then run it again.")
    if free < with_copies:
        warn(f"{said}; with DVC's copy of its outputs this training takes up to {with_copies / 1e6:,.0f} MB.")
