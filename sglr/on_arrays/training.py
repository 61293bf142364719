"""Training a method on arrays, without a pipeline: ``sglr.train``."""

import os
import platform
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import sglr
from sglr import files, models, processes
from sglr.attacks.inputs import outside_inference_mode
from sglr.config import Config, ConfigError
from sglr.config.errors import undeclared
from sglr.data import Split
from sglr.on_arrays import arguments
from sglr.on_arrays.arrays import AnyArray, class_count, splits_of, weights_of
from sglr.on_arrays.fingerprint import fingerprint, sources
from sglr.project.items import value_of
from sglr.random import undisturbed
from sglr.threat import Threat
from sglr.training import Hooks, Plan, Snapshots, TrainingResult, fit
from sglr.training.snapshots import interval

NAME = "trained"
_SECONDS = "SGLR_SNAPSHOT_SECONDS"
# What a training on arrays reads of the params, beside the method: as the train stage, but for the thread count.
_USED = ("data.augment", "model", "threat", "warmup", "train")
# Nothing of these epochs is returned.
_UNUSED = ("train.keep_epochs",)


@dataclass(frozen=True)
class Fitted:
    """What ``train`` returns: the models, on the CPU and in eval mode, and how they came about.

    ``best`` is the model of the epoch with the highest robust accuracy on the validation split (natural accuracy for an
    objective without an attack), None without a validation split.
    ``history`` has one row per epoch of training, with the columns of history.csv (docs/architecture.md) but ``phase``.
    ``refined`` (n, C) are the refined labels after the last epoch.
    """

    last: nn.Module
    best: nn.Module | None
    best_epoch: int | None
    history: list[dict[str, Any]]
    refined: Tensor
    spec: dict[str, Any]
    """From which ``sglr.models.from_spec`` builds the untrained model."""

    def save(self, folder: str | Path) -> None:
        """Write ``last`` and ``best`` into folders of these names, for ``sglr.load_model``.

        What an earlier ``save`` wrote there is replaced; where there is no best, none is left.
        """
        for name, model in (("last", self.last), ("best", self.best)):
            if model is not None:
                models.save(model, Path(folder) / name, self.spec)
            else:
                models.remove(Path(folder) / name)


@outside_inference_mode
def train(
    x: AnyArray,
    y: AnyArray,
    *,
    method: str | Mapping[str, Any] = "sglr",
    threat: Threat | None = None,
    validation: tuple[AnyArray, AnyArray] | None = None,
    true: AnyArray | None = None,
    num_classes: int | None = None,
    seed: int = 0,
    params: str | Path | None = None,
    changes: Mapping[str, Any] | None = None,
    device: str | torch.device = "cpu",
    snapshots: str | Path | None = None,
    initial: nn.Module | str | Path | None = None,
) -> Fitted:
    """Train a method on images with given labels, as the pipeline would.

    Args:
        x: Training images (n, C, H, W), or (n, H, W, C) with one or three channels, uint8 or float in [0, 1], NumPy or
            torch.
        y: The labels to train on (n,), whole numbers from 0.
        method: A name declared under ``methods`` of the params, or a mapping of objective, labels and weights.
        threat: ``sglr.threat.Linf(8 / 255)`` or another ball; None where ``params`` or ``changes`` have the radius.
        validation: Images and labels on which the best epoch is chosen; None: there is no best.
        true: The right labels (n,), where ``y`` may hold wrong ones; they are measured against, never trained on.
        num_classes: Default: the largest label plus one, with a warning where labels below it do not occur.
        seed: Of the initial weights and everything that is drawn.
        params: Path of a params file, of which ``data.augment``, ``model``, ``threat``, ``warmup``, ``train`` and the
            method are used. Default: the shipped one, whose model and learning rates are made for 300 images of 8x8
            pixels; steps then have a quarter of the threat's radius.
        changes: Values to replace in the params, by dotted key: ``{"train.epochs": 30}``. Those that play no part here
            are refused: label noise, sizes of splits, experiment, kept epochs, everything about evaluation.
        device: cpu, cuda, cuda:1 ... or auto, a GPU where there is one.
        snapshots: Folder in which the state is kept every SGLR_SNAPSHOT_SECONDS (30), until the end: the same call made
            again continues a training that was interrupted. It may hold those of several trainings, which are told
            apart by everything that they depend on: arguments, thread count, versions, the code of this library and of
            the files in which the classes of your own components are defined.
        initial: A model of the same kind, or the folder of a saved one, whose weights and buffers training begins with
            (fine-tuning), in place of the seed's random ones and of a warm-up. It is not changed.

    Raises:
        ConfigError: There is no threat model; params or changes are not valid, or play no part; the device is not
            there; SGLR_SNAPSHOT_SECONDS is no number.
        TypeError: What is given is no array, no pair, no dict, no model.
        ValueError: The arrays cannot be used; ``initial`` is another network than the params', or normalises images
            otherwise; a component is defined in a notebook, so that snapshots could not tell it from an earlier form.
        TrainingError: As for ``sglr.training.fit``.
        FileError: ``initial`` cannot be read; snapshots cannot be written or read, or another process is at work on
            them.

    Warns:
        UserWarning: Values that are probably mistakes, such as milestones after the last epoch.
    """
    device = processes.device(str(device), "device")
    _require_seed(seed)
    splits = splits_of(x, y, true, validation, device)
    num_classes = class_count(splits, num_classes)
    config, chosen = _config(
        method, threat, params, arguments.as_changes(changes), validated=validation is not None, warm=initial is None
    )
    channels, height, width = splits[0].x.shape[1:]
    spec = models.spec(config.model, num_classes=num_classes, shape=(channels, height, width))
    weights = None if initial is None else weights_of(initial, spec)
    training = _Training(config, chosen, int(seed), spec, device, splits, weights)
    if snapshots is None:
        return _fitted(training.run(None), spec)
    interval(os.environ.get(_SECONDS, "30"))  # refused before anything is written
    folder = Path(snapshots) / training.fingerprint()
    with files.lock(folder / "lock", holder="another training with the same arguments"):
        fitted = _fitted(training.run(folder), spec)
        shutil.rmtree(folder, ignore_errors=True)
    return fitted


def _require_seed(seed: Any) -> None:
    if isinstance(seed, bool) or not isinstance(seed, Integral) or seed < 0:
        raise ValueError(f"seed must be a whole number of at least 0, found {seed!r}")


@dataclass(frozen=True)
class _Training:
    """One method's training, after the warm-up that it begins with."""

    config: Config
    method: str
    seed: int
    spec: dict[str, Any]
    device: torch.device
    splits: list[Split]
    weights: dict[str, Tensor] | None
    """With which training begins; None: with those of the seed and the warm-up."""

    def initial_model(self) -> nn.Module:
        """The network as training, or its warm-up, begins with it; on the CPU."""
        model = models.initial(self.spec, self.seed)
        if self.weights is not None:
            models.put(model, self.weights)
        return model

    def run(self, folder: Path | None) -> TrainingResult:
        """What it leaves; with a folder it goes on from what is in it, and keeps its state there."""
        model = self.initial_model().to(self.device)
        chosen, continue_from = self.config.methods[self.method], None
        if chosen.start == "warmup":
            continue_from = self._warmed(model, folder)
        kept = None if folder is None else folder / "training"
        return self._fit(Plan.training(self.config, chosen, self.seed), model, kept, self.method, continue_from)

    def _warmed(self, model: nn.Module, folder: Path | None) -> dict[str, Any] | None:
        """Put the model into the state it has after the warm-up; what a training continues, if it does."""
        done = None if folder is None else folder / "warm-up.state"
        if done is not None and done.is_file():
            state = files.load_state(done)
            model.load_state_dict(state["model"])
            return state["continued"] or None
        kept = None if folder is None else folder / "warm-up"
        warm = self._fit(Plan.warm_up(self.config, self.seed), model, kept, "warm-up", None)
        continued = warm.state if self.config.warmup.objective == "adversarial" else None
        if done is not None:
            files.save_state(done, {"model": model.state_dict(), "continued": continued or {}})
        return continued

    def _fit(
        self, plan: Plan, model: nn.Module, folder: Path | None, title: str, continue_from: dict[str, Any] | None
    ) -> TrainingResult:
        kept = None
        if folder is not None:
            kept = Snapshots(folder, interval(os.environ.get(_SECONDS, "30")), warn=warnings.warn)
        return fit(plan, model, *self.splits, hooks=Hooks(kept), continue_from=continue_from, title=title)

    def fingerprint(self) -> str:
        """A digest of all that the result depends on, the code of this library and of other components included."""
        asked = [value_of(self.config.model_dump(mode="json"), key) for key in (*_USED, f"methods.{self.method}")]
        arrays = [part for split in self.splits for part in (split.x, split.given, split.true)]
        method = self.config.methods[self.method].for_seed(self.seed)
        more, schedule = self.config.data.augment.more, self.config.train.schedule
        weights = method.weights.parts()
        options = (self.config.model, schedule, method.objective, method.labels, method.weights, *weights, *more)
        with undisturbed():
            model = models.initial(self.spec, self.seed)
            given, classes, epochs = self.splits[0].given, self.spec["num_classes"], self.config.train.epochs
            parts = (method.objective.build(), method.labels.build(given, classes, epochs))
            parts += tuple(one.build(model) for one in (method.weights, *weights))
            shape = tuple(self.spec["shape"])
            parts += tuple(one.build(shape) for one in more if not one.misfit(shape))  # others are refused by fit
        try:
            own = sorted(sources((*options, *parts, *model.modules())).items())
        except LookupError as error:
            raise ValueError(
                f"snapshots cannot tell {error.args[0]}, which is defined in a notebook, from an earlier form of it:"
                " put it into a file, or leave the snapshots out"
            ) from None
        code = [files.digest(Path(sglr.__file__).parent), own]
        versions = [platform.python_version(), torch.__version__, torch.get_num_threads()]
        begun = {} if self.weights is None else self.weights
        return fingerprint(asked, self.seed, self.spec, str(self.device), code, versions, arrays, begun)[:32]


def _fitted(result: TrainingResult, spec: dict[str, Any]) -> Fitted:
    def holding(weights: dict[str, Tensor]) -> nn.Module:
        one = models.from_spec(spec, device="meta")  # no weights are allocated beside these
        one.load_state_dict(weights, assign=True)
        return one.eval()

    best = None if result.best is None else holding(result.best)
    return Fitted(holding(result.last), best, result.best_epoch, result.history, result.refined, spec)


def _config(
    method: str | Mapping[str, Any],
    threat: Threat | None,
    path: str | Path | None,
    changes: Mapping[str, Any],
    *,
    validated: bool,
    warm: bool,
) -> tuple[Config, str]:
    """The validated params with the changes in them, and the name of the one method that is trained."""
    values = arguments.params(path)
    name = method if isinstance(method, str) else NAME
    used = [key for key in _USED if warm or key != "warmup"]
    if isinstance(method, str):
        used.append(f"methods.{name}")
        _require_declared(method, values, changes)
    arguments.require_used(changes, used, _UNUSED, "sglr.train")
    arguments.with_threat(values, threat, path, changes, "sglr.train")
    for key, value in changes.items():
        arguments.put(values, key, value)
    if not isinstance(method, str):
        values.setdefault("methods", {})[name] = dict(method)
    # Augmentation alone of `data` concerns arrays that are there already; a source is never read.
    arguments.put(values, "data.source", {"name": "npz", "path": NAME})
    arguments.put(values, "data.train_size", None)
    arguments.put(values, "data.noise", {"kind": "none", "rate": 0.0, "seed": 0})
    arguments.put(values, "data.noisy_validation", False)
    arguments.put(values, "train.keep_epochs", [])
    if not warm:
        arguments.put(values, "warmup.epochs", 0)
    arguments.put(values, "experiment.methods", [name])
    arguments.put(values, "data.validation_size", int(validated))
    return arguments.validated(values, path, changes, used, "sglr.train", threat=threat), name


def _require_declared(method: str, values: Mapping[str, Any], changes: Mapping[str, Any]) -> None:
    """ConfigError that says so first: of an unknown method, changes of any other would seem to have no effect."""
    declared = {key.split(".")[1] for key in changes if key.startswith("methods.")}
    for found in (values.get("methods"), changes.get("methods")):
        declared |= set(found) if isinstance(found, Mapping) else set()
    if method not in declared:
        raise ConfigError(f"sglr.train: {undeclared(method, declared)}")
