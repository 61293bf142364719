"""The room on the disk that trainings, and the other items of a study, need, forecast before they start."""

import math
import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from sglr import files, models
from sglr.attacks.autoattack import MEMBERS, AutoAttackOptions
from sglr.config import Config
from sglr.data.torchvision_sets import TorchvisionOptions
from sglr.models.registry import Shape
from sglr.training.history import TRACED

_FLOAT = 4
# Copies of the weights in one snapshot: the network, its momentum, the best so far, an average.
_IN_A_SNAPSHOT = 4
# Two are kept while a third is written.
_SNAPSHOTS = 3
# Copies of the weights that a shared warm-up hands on: it has no average.
_PASSED_ON = 3
# best and last.
_MODELS = 2
# History, logs, descriptions.
_SMALL_FILES = 2**21
# Tables of one probability per example and class: the label policy's, now and at the best epoch.
_TABLES = 2
# Numbers of 64 bits: labels, indices, positions.
_NUMBER = 8
# Beside each prepared image: given and true label, position in the source.
_OF_AN_IMAGE = 3 * _NUMBER
# Figures and tables for each training: 0.78 MB with 6 trainings of digits, and with 80 of CIFAR-10.
_REPORT = 2**20
# CIFAR-10's classes, shape and number of images, for sources of which only reading tells them.
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
    """Bytes that one item writes, at most."""

    snapshots: int
    """Until its outputs are in DVC's cache: snapshots, or an evaluation's finished pieces."""
    outputs: int
    """Without DVC's copy of them, which takes as much again."""

    @property
    def own(self) -> int:
        """What the item itself takes."""
        return self.snapshots + self.outputs + _SMALL_FILES

    @property
    def with_copies(self) -> int:
        """With DVC's copy of the outputs."""
        return self.own + self.outputs


def expected(config: Config, data: Path) -> ExpectedData:
    """The prepared data in a folder where it is of the config's source; else what that source is known to hold, or
    taken for.

    FileError when the folder is damaged.
    """
    asked = config.data
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


def needed(config: Config, data: Path) -> Need:
    """The room that one training takes, on the data that ``expected`` finds.

    FileError when the folder is damaged, ConfigError when the model does not fit its images.
    """
    images = expected(config, data)
    weights = _weights(config, images)
    table = images.examples * images.classes * _FLOAT
    # With each model the labels as they were then.
    kept = len(config.train.keep_epochs) * (weights + table)
    trace = config.train.epochs * TRACED * images.classes * _FLOAT
    return Need(
        snapshots=_SNAPSHOTS * (_IN_A_SNAPSHOT * weights + _TABLES * table + trace) + kept,
        outputs=_MODELS * (weights + table) + kept + table + trace,
    )


def of_study(config: Config, data: Path, done: Collection[str] = ()) -> int:
    """Bytes that the items of a study leave, DVC's copies among them, and one of them needs meanwhile; 0 where none is
    left. Downloads and MLflow's files are not counted.

    done: names of the items that are on the disk already. Errors as in ``needed``.
    """
    left = [name.partition("@")[0] for name in _items(config) if name not in done]
    needs = _needs(config, data)
    kept = sum(2 * needs[stage].outputs + _SMALL_FILES for stage in left)
    return kept + max((needs[stage].snapshots for stage in left), default=0)


def _items(config: Config) -> list[str]:
    """All that write more than a line, by their names in DVC."""
    seeds = config.experiment.seeds
    pairs = [f"{method}-{seed}" for method in config.experiment.methods for seed in seeds]
    each = [f"{stage}@{pair}" for stage in ("train", "evaluate", "analyze") for pair in pairs]
    return ["prepare", *(f"warmup@{seed}" for seed in seeds), *each, "audit", "report"]


def _needs(config: Config, data: Path) -> dict[str, Need]:
    """What one item of each stage needs."""
    images = expected(config, data)
    weights, training = _weights(config, images), needed(config, data)
    trainings = len(config.experiment.methods) * len(config.experiment.seeds)
    adversarial = config.warmup.objective == "adversarial"
    return {
        "prepare": Need(0, _prepared(config, images)),
        "warmup": Need(training.snapshots, (1 + _PASSED_ON * adversarial) * weights),
        "train": training,
        "evaluate": _attacks(config, images),
        "audit": Need(0, trainings * _shown(config, images)),
        "analyze": Need(0, 0),
        "report": Need(0, trainings * _REPORT),
    }


def _prepared(config: Config, images: ExpectedData) -> int:
    of_a_value = 1 if isinstance(config.data.source, TorchvisionOptions) else _FLOAT
    examples = images.examples + config.data.validation_size + images.test_examples
    return examples * (math.prod(images.shape) * of_a_value + _OF_AN_IMAGE)


def _attacks(config: Config, images: ExpectedData) -> Need:
    """What an evaluation takes: worst-case images, each attack's meanwhile, and which examples each one broke."""
    section = config.evaluate
    kept = _MODELS * _kept(config, images) * math.prod(images.shape) * _FLOAT
    pieces = 1 + sum(
        len(MEMBERS[attack.version]) if isinstance(attack, AutoAttackOptions) else 1
        for attack in section.attacks.values()
    )
    rows = 2 + len(section.attacks)  # natural and the worst case
    radii = 0 if section.sweep is None else 1 + len(section.sweep.eps_255)
    outcomes = section.examples(images.test_examples) * (rows * _NUMBER + _MODELS * (rows + radii))
    return Need(snapshots=pieces * kept, outputs=kept + outcomes)


def _shown(config: Config, images: ExpectedData) -> int:
    """What the audit takes for each training: some images, and the classes of all."""
    from sglr.evaluation.auditing import SHOWN  # here, as in ``_kept``

    classes = 2 * _kept(config, images) * _NUMBER
    return _MODELS * (SHOWN * math.prod(images.shape) * _FLOAT + classes)


def _kept(config: Config, images: ExpectedData) -> int:
    """How many worst-case images are kept of a model."""
    # Here, because this module is loaded by stages that do not depend on it.
    from sglr.evaluation.suite import KEPT

    return min(KEPT, config.evaluate.examples(images.test_examples))


def _weights(config: Config, images: ExpectedData) -> int:
    spec = models.spec(config.model, num_classes=images.classes, shape=images.shape)
    model = models.from_spec(spec, device="meta")
    return sum(value.numel() for value in model.state_dict().values()) * _FLOAT


def require(config: Config, data: Path, folder: Path, warn: Callable[[str], object]) -> None:
    """FileError when the disk under ``folder`` has less room than a training writes; a warning when DVC's copy of its
    outputs may find none."""
    need = needed(config, data)
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
