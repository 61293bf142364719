"""What is analysed: one training run, its data, its checkpoints, and the examples that are looked at."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sglr import files, models
from sglr.config import Config
from sglr.config.names import CHECKPOINTS, LABELS, SPEC
from sglr.config.sections import Method
from sglr.data import Prepared, Split
from sglr.information import label_noise
from sglr.information.checks import Integers
from sglr.information.training_record import TrainingRecord, check_same_labels, read
from sglr.labels import LabelPolicy
from sglr.models import Classifier
from sglr.random import numpy_stream

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Checkpoint:
    """name: "start" (the weights training began with), "epoch-<n>" (a kept one), "best" or "last".

    untrained: the run's seed, where its initial weights are meant; of the model at ``path`` only the architecture is.
    """

    name: str
    epoch: int
    path: Path
    untrained: int | None = None

    def load(self, device: torch.device) -> Classifier:
        """The model in eval mode."""
        if self.untrained is not None:
            return models.initial(files.read_json(self.path / SPEC), self.untrained).to(device).eval()
        return models.load_model(self.path).to(device).eval()


@dataclass(frozen=True)
class AnalyzedRun:
    """chosen: the method as a run of this seed has it; train_index: int64 (m,), the training examples looked at one by
    one, drawn with ``analyze.seed``; test_index: the first so many test examples; noise_kind: that of the data;
    noise_entropy: H(given | true) of the draw per training example, noise_information: I(given; true) of its channel,
    both None where no noise was injected."""

    config: Config
    method: str
    chosen: Method
    trained: TrainingRecord
    train: Split
    validation: Split
    test: Split
    checkpoints: tuple[Checkpoint, ...]
    train_index: Integers
    test_index: Tensor
    noise_kind: str
    noise_entropy: float | None
    noise_information: float | None
    tables: dict[str, Rows] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    @property
    def start(self) -> Checkpoint | None:
        """The checkpoint training began with; None where its weights were not kept."""
        return next((one for one in self.checkpoints if one.name == "start"), None)

    def labels(self, checkpoint: Checkpoint) -> LabelPolicy:
        """The label policy as it was at a checkpoint; FileError where its state is not on record."""
        trained = self.trained
        policy = self.chosen.labels.build(self.train.given, trained.refined.shape[1], trained.epochs)
        if checkpoint.name == "start":
            return policy
        try:
            state = trained.labels[checkpoint.name.removeprefix("epoch-")]
            if state:  # else the policy has nothing to keep
                policy.load_state_dict(state)
        except (LookupError, ValueError) as error:
            raise files.FileError(
                f"{checkpoint.path.parent}: {LABELS} does not say what the labels were at {checkpoint.name} ({error});"
                " run the training again."
            ) from None
        return policy

    def add(self, table: str, checkpoint: Checkpoint, **row: Any) -> None:
        """Add a row to a table."""
        rows = self.tables.setdefault(table, [])
        rows.append({"checkpoint": checkpoint.name, "epoch": checkpoint.epoch, **row})


def open_run(
    config: Config, data: Prepared, folder: Path, method: str, seed: int, device: torch.device, warmup: Path | None
) -> AnalyzedRun:
    """Read a training folder, and from ``warmup`` the weights it began with; FileError names what is wrong."""
    trained = read(folder)
    train, validation, test = data.train(seed, device), data.validation(seed, device), data.test(device)
    check_same_labels(trained, train, folder)
    drawn = numpy_stream(config.analyze.seed, "training subset").permutation(len(train))
    noise = data.meta["noise"]
    entropy = information = None
    if noise["kind"] != "none" and trained.noisy.any():
        pairs = None if noise["map"] is None else {int(key): value for key, value in noise["map"].items()}
        kind, rate, classes = noise["kind"], noise["rate"], data.num_classes
        entropy = label_noise.drawn_entropy(kind, rate, classes, trained.true, pairs)
        rows = label_noise.channel(kind, rate, classes, pairs)
        information = label_noise.channel_information(rows, trained.true)
    return AnalyzedRun(
        config, method, config.methods[method].for_seed(seed), trained, train, validation, test,
        checkpoints=_checkpoints(config, trained, folder, method, seed, warmup),
        train_index=drawn[: _at_most(config, len(train))],
        test_index=torch.arange(_at_most(config, len(test)), device=test.given.device),
        noise_kind=noise["kind"],
        noise_entropy=entropy,
        noise_information=information,
    )  # fmt: skip


def _checkpoints(
    config: Config, trained: TrainingRecord, folder: Path, method: str, seed: int, warmup: Path | None
) -> tuple[Checkpoint, ...]:
    found = []
    if config.methods[method].start == "initial":
        found.append(Checkpoint("start", 0, folder / "last", untrained=seed))
    elif warmup is not None:
        shared = config.warmup.epochs if config.warmup.objective == "adversarial" else 0
        found.append(Checkpoint("start", shared, warmup))
    kept = folder / "checkpoints"
    for path in sorted(kept.iterdir(), key=lambda path: int(path.name)) if kept.is_dir() else ():
        epoch = int(path.name)
        if not any(row.get("epoch") == epoch for row in trained.history):
            raise files.FileError(f"{path}: history.csv has no epoch {epoch}; run the training again.")
        found.append(Checkpoint(f"epoch-{epoch}", epoch, path))
    for name in CHECKPOINTS:
        at = trained.epoch_of(name)
        if at is not None:
            found.append(Checkpoint(name, at, folder / name))
    return tuple(found)


def _at_most(config: Config, available: int) -> int:
    wanted = config.analyze.n_examples
    return available if wanted is None else min(wanted, available)
