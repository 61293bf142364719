"""Training a method on arrays, without a pipeline: ``sglr.train``."""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sglr import models
from sglr.config import Config, ConfigError, parse
from sglr.config.reader import validate
from sglr.data import Split
from sglr.data.arrays import as_labels, as_pictures, check_labels, check_pictures
from sglr.files import FileError
from sglr.training import Plan, Trained, fit

SHIPPED = Path(__file__).parent / "presets" / "base.yaml"
NAME = "trained"
# What a training on arrays reads of the params, beside the method: as the train stage, but for the thread count.
_USED = ("data.augment", "model", "threat", "warmup", "train")
# Nothing of these epochs is returned.
_UNUSED = ("train.keep_epochs",)
Pictures = Tensor | np.ndarray[Any, Any]


@dataclass(frozen=True)
class Fitted:
    """What ``train`` returns: the models, on the CPU and in eval mode, and how they came about.

    ``best`` is the model of the epoch with the highest robust accuracy on the validation split, None without one.
    ``history`` has one row per epoch of training, with the columns of history.csv (docs/architecture.md). ``targets``
    (n, C) are the training targets after the last epoch.
    """

    last: nn.Module
    best: nn.Module | None
    best_epoch: int | None
    history: list[dict[str, Any]]
    targets: Tensor
    spec: dict[str, Any]
    """From which ``sglr.models.from_spec`` builds the untrained model."""

    def save(self, folder: str | Path) -> None:
        """Write ``last`` and ``best`` into folders of these names, for ``sglr.load_model``."""
        for name, model in (("last", self.last), ("best", self.best)):
            if model is not None:
                models.save(model, Path(folder) / name, self.spec)


def train(
    x: Pictures,
    y: Pictures,
    *,
    method: str | Mapping[str, Any] = "sglr",
    validation: tuple[Pictures, Pictures] | None = None,
    true: Pictures | None = None,
    num_classes: int | None = None,
    seed: int = 0,
    params: str | Path | None = None,
    changes: Mapping[str, Any] | None = None,
    device: str | torch.device = "cpu",
) -> Fitted:
    """Train a method on pictures ``x`` with the given labels ``y``, as the pipeline would.

    x: (n, C, H, W), or (n, H, W, C) with one or three channels, uint8 or float in [0, 1], NumPy or torch; y: (n,) whole
    numbers from 0. ``validation``: pictures and labels on which the best epoch is chosen. ``true``: the right labels,
    where ``y`` may hold wrong ones; they are measured against, never trained on. ``num_classes``: default the largest
    label plus one.

    ``method`` is a name declared under ``methods`` of the params, or a mapping of objective, labels and weights.
    ``params`` is the path of a params file; default: the shipped one, whose model, radius and learning rate are made
    for 300 pictures of 8x8 pixels. ``changes`` go on top of it, by dotted key: ``{"train.epochs": 20,
    "threat.eps_255": 8}``. Of the params, those of data.augment, model, threat, warmup, train and, under methods, the
    method by its name are used. Label noise, sizes of splits, experiment, kept epochs and everything about evaluation
    play no part: in a params file they are passed over, among the changes refused.

    Raises ConfigError for params, for changes that play no part and for a device that is not there, ValueError for
    arrays that cannot be used, TrainingError as ``sglr.training.fit``.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {str(device)!r} cannot be used: {str(error).splitlines()[0]}") from None
    splits = [_split(x, y, y if true is None else true, device, "x", "y")]
    if validation is not None:
        splits.append(_split(*validation, validation[1], device, "validation[0]", "validation[1]"))
        if splits[0].x.shape[1:] != splits[1].x.shape[1:]:
            raise ValueError("the pictures for validation have another shape than those for training")
    found = max(int(labels.max()) for split in splits for labels in (split.given, split.true)) + 1
    num_classes = found if num_classes is None else num_classes
    if found > num_classes:
        raise ValueError(f"there is a label {found - 1}, but num_classes is {num_classes}")
    config, chosen = _config(method, params, changes or {})
    channels, height, width = splits[0].x.shape[1:]
    spec = models.spec(config.model, num_classes=num_classes, shape=(channels, height, width))
    model = models.initial(spec, seed)
    continue_from = None
    if config.methods[chosen].start == "warmup":
        warm = fit(Plan.warm_up(config, seed), model.to(device), *splits, title="warm-up")
        continue_from = warm.state if config.warmup.objective == "adversarial" else None
    plan = Plan.training(config, config.methods[chosen], seed)
    result = fit(plan, model.to(device), *splits, continue_from=continue_from, title=chosen)
    return _fitted(result, spec)


def _fitted(result: Trained, spec: dict[str, Any]) -> Fitted:
    def holding(weights: dict[str, Tensor]) -> nn.Module:
        one = models.from_spec(spec, device="meta")
        one.load_state_dict(weights, assign=True)
        return one.eval()

    best = None if result.best is None else holding(result.best)
    return Fitted(holding(result.last), best, result.best_epoch, result.history, result.targets, spec)


def _config(method: str | Mapping[str, Any], path: str | Path | None, changes: Mapping[str, Any]) -> tuple[Config, str]:
    """The validated params with the changes in them, and the name of the one method that is trained."""
    source = SHIPPED if path is None else Path(path)
    try:
        values = parse(source.read_text(encoding="utf-8"), str(source))
    except OSError as error:
        raise ConfigError(f"cannot read {source}: {error}") from None
    name = method if isinstance(method, str) else NAME
    _require_used(changes, [*_USED, f"methods.{name}"] if isinstance(method, str) else list(_USED))
    for key, value in changes.items():
        _set(values, key, value)
    if not isinstance(method, str):
        values.setdefault("methods", {})[name] = dict(method)
    # Of the data, only augmentation concerns arrays that are there already; their source is never read.
    _set(values, "data.source", {"name": "npz", "path": NAME})
    _set(values, "data.train_size", None)
    _set(values, "data.noise", {"kind": "none", "rate": 0.0, "seed": 0})
    _set(values, "train.keep_epochs", [])
    _set(values, "experiment.methods", [name])
    return validate(values, str(source)), name


def _require_used(changes: Mapping[str, Any], used: list[str]) -> None:
    """ConfigError for changes that play no part; what is no key of params at all is left to the config to refuse."""
    idle = [
        key
        for key in itertools.chain.from_iterable(_leaves(key, value) for key, value in changes.items())
        if key.split(".")[0] in Config.model_fields and (not _below(key, used) or _below(key, _UNUSED))
    ]
    if idle:
        raise ConfigError(
            f"changes: {', '.join(idle)} would have no effect: sglr.train, which is given its data, uses only"
            f" {', '.join(used)}, but for {', '.join(_UNUSED)}. Leave out the rest."
        )


def _below(key: str, sections: Iterable[str]) -> bool:
    return any(f"{key}.".startswith(f"{section}.") for section in sections)


def _leaves(key: str, value: Any) -> Iterator[str]:
    """The dotted keys of all values under a key."""
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _leaves(f"{key}.{name}", inner)
    else:
        yield key


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    """Put a value at a dotted key; a section on the way that is missing is made, and refused later if unknown."""
    *sections, last = key.split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise ConfigError(f"{key}: {section} is not a section")
    values[last] = value


def _split(
    x: Pictures, given: Pictures, true: Pictures, device: str | torch.device, pictures: str, labels: str
) -> Split:
    arrays = [np.asarray(array.detach().cpu() if isinstance(array, Tensor) else array) for array in (x, given, true)]
    arrays[0] = as_pictures(arrays[0])
    arrays[1:] = map(as_labels, arrays[1:])
    try:
        check_pictures(arrays[0], pictures)
        check_labels(arrays[1], labels)
        check_labels(arrays[2], "true")
    except FileError as error:
        raise ValueError(str(error)) from None
    if not len(arrays[0]) == len(arrays[1]) == len(arrays[2]):
        raise ValueError(
            f"{len(arrays[0])} pictures ({pictures}), {len(arrays[1])} labels ({labels}), {len(arrays[2])} true labels"
        )
    return Split(*(torch.from_numpy(np.array(array)).to(device) for array in arrays))
