"""The room on the disk that trainings need, forecast before they start."""

import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sglr import config, files, models
from sglr.models.registry import Shape
from sglr.training.history import TRACED

_FLOAT = 4
# Of the weights: the network, its momentum, the best so far, an average.
_IN_A_SNAPSHOT = 4
# Two are kept while a third is written.
_SNAPSHOTS = 3
# best and last.
_MODELS = 2
# History, logs, descriptions.
_SMALL_FILES = 2**21
# Tables of one probability per example and class: the label policy's, now and at the best epoch.
_TABLES = 2
# Of sources that only reading tells of: classes, shape and number of images, as CIFAR-10 has them.
_USUAL: tuple[int, Shape] = (10, (3, 32, 32))
_EXAMPLES, _TEST_EXAMPLES = 50_000, 10_000


@dataclass(frozen=True)
class ExpectedData:
    """How many examples to train and to test on, of how many classes, of which shape."""

    examples: int
    test_examples: int
    classes: int
    shape: Shape
    assumed: bool = False
    """Whether nothing tells of them, and they are taken for CIFAR-10's."""


@dataclass(frozen=True)
class Need:
    """Bytes that one training writes, at most."""

    snapshots: int
    outputs: int
    """Without DVC's copy of them, which takes as much again."""

    @property
    def own(self) -> int:
        """Of the training itself."""
        return self.snapshots + self.outputs + _SMALL_FILES

    @property
    def with_copies(self) -> int:
        """With DVC's copy of the outputs."""
        return self.own + self.outputs


def expected(settings: config.Config, data: Path) -> ExpectedData:
    """The prepared data in a folder where it is of the settings' source; else what that source is known to hold, or
    taken for.

    FileError when the folder is damaged.
    """
    asked = settings.data
    if (data / "meta.json").exists():
        meta = files.read_json(data / "meta.json")
        try:
            if meta["source"] == asked.source.model_dump(mode="json"):
                channels, height, width = map(int, meta["shape"])
                examples, tested = asked.training_examples or int(meta["sizes"]["train"]), int(meta["sizes"]["test"])
                return ExpectedData(examples, tested, int(meta["num_classes"]), (channels, height, width))
        except (LookupError, TypeError, ValueError) as error:
            raise files.FileError(
                f"{data / 'meta.json'} is not what `prepare` writes ({error!r}): `dvc checkout`, or remove it and run"
                " `dvc repro`."
            ) from None
    told = asked.source.classes_and_shape()
    classes, shape = told or _USUAL
    tested = asked.source.test_examples() or _TEST_EXAMPLES
    return ExpectedData(asked.training_examples or _EXAMPLES, tested, classes, shape, assumed=told is None)


def needed(settings: config.Config, data: Path) -> Need:
    """Of one training on the data that ``expected`` finds.

    FileError when the folder is damaged, ConfigError when the model does not fit its images.
    """
    images = expected(settings, data)
    spec = models.spec(settings.model, num_classes=images.classes, shape=images.shape)
    model = models.from_spec(spec, device="meta")
    weights = sum(value.numel() for value in model.state_dict().values()) * _FLOAT
    table = images.examples * images.classes * _FLOAT
    # With each model the labels as they were then.
    kept = len(settings.train.keep_epochs) * (weights + table)
    trace = settings.train.epochs * TRACED * images.classes * _FLOAT
    return Need(
        snapshots=_SNAPSHOTS * (_IN_A_SNAPSHOT * weights + _TABLES * table + trace) + kept,
        outputs=_MODELS * (weights + table) + kept + table + trace,
    )


def of_study(settings: config.Config, data: Path) -> int:
    """Bytes that all trainings of a study leave, DVC's copies among them, and one of them needs meanwhile.

    Errors as in ``needed``.
    """
    one = needed(settings, data)
    trainings = len(settings.experiment.methods) * len(settings.experiment.seeds)
    return trainings * (2 * one.outputs + _SMALL_FILES) + one.snapshots


def require(settings: config.Config, data: Path, folder: Path, warn: Callable[[str], object]) -> None:
    """FileError when the disk under ``folder`` has less room than a training writes; a warning when DVC's copy of its
    outputs may find none."""
    need = needed(settings, data)
    free = shutil.disk_usage(folder).free
    said = f"{free // 10**6:,} MB are free in {folder.absolute()}"
    if free < need.own:
        raise files.FileError(
            f"{said}; this training writes up to {megabytes(need.own)}. Make room, then run it again."
        )
    if free < need.with_copies:
        warn(f"{said}; with DVC's copy of its outputs this training takes up to {megabytes(need.with_copies)}.")


def megabytes(size: int) -> str:
    """A size in words, rounded up: '1,204 MB'."""
    return f"{math.ceil(size / 1e6):,} MB"
