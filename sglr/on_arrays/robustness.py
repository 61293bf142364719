"""Measuring any model on arrays, without a pipeline: ``sglr.robustness``."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import sglr
from sglr import files, processes
from sglr.attacks.inputs import outside_inference_mode
from sglr.attacks.losses import single_logit
from sglr.config import Config, ConfigError, packages
from sglr.config.errors import ModelError
from sglr.data import Split
from sglr.evaluation import Evaluation
from sglr.evaluation.on_models import evaluate_model
from sglr.on_arrays import arguments
from sglr.on_arrays.arrays import AnyArray, split
from sglr.on_arrays.fingerprint import OpaqueError, fingerprint
from sglr.random import seeded
from sglr.threat import Threat

_USED = ("threat", "evaluate")


@outside_inference_mode
def robustness(
    model: nn.Module,
    x: AnyArray,
    y: AnyArray,
    *,
    threat: Threat | None = None,
    attacks: str | Sequence[str] | Mapping[str, Any] | None = None,
    n_examples: int | None = None,
    batch_size: int | None = None,
    params: str | Path | None = None,
    changes: Mapping[str, Any] | None = None,
    device: str | torch.device = "cpu",
    snapshots: str | Path | None = None,
) -> Evaluation:
    """Attack any module with a suite of attacks, as the pipeline attacks its models.

    A copy of the model (``copy.deepcopy``) is attacked, in eval mode and float32, or in the types of its own where it
    converts images to these: the model stays as it is. What it only refers to, such as a network in a function's
    globals, is neither copied nor put into eval mode. Not for several threads of one process at a time: torch's global
    generators and AutoAttack's warnings are shared.

    Args:
        model: Images (n, C, H, W) in [0, 1] in, logits (n, classes) out.
        x: Test images (n, C, H, W), or (n, H, W, C) with one or three channels, uint8 or float in [0, 1], NumPy or
            torch.
        y: Their labels (n,), whole numbers from 0.
        threat: ``sglr.threat.Linf(8 / 255)`` or another ball; None where ``params`` or ``changes`` have the radius.
        attacks: The suite: a name ("autoattack"), several, or what ``evaluate.attacks`` takes,
            ``{"pgd20": {"name": "pgd", "steps": 20}}``. Default: the params'.
        n_examples: How many of the images, from the first on, an attack is run on that does not say so itself.
        batch_size: Images at once.
        params: Path of a params file, of which ``threat`` and ``evaluate`` are used. Default: the shipped one, with the
            radii of its sweep in proportion to the threat's.
        changes: Values to replace in the params, by dotted key:
            ``{"evaluate.sweep": None, "evaluate.sanity": None}`` leaves out all but the attacks.
        device: cpu, cuda, cuda:1 ... or auto, a GPU where there is one.
        snapshots: Folder in which finished pieces are kept: the same call made again continues an evaluation that was
            interrupted. It may hold those of several models and suites; models are told apart by everything that they
            hold, the globals of functions among it, not by the code of their classes: take another folder when that
            changes.

    Returns:
        The evaluation: ``found.accuracy("autoattack")`` and ``found.interval("autoattack")``; ``found.flags`` are
        reasons to doubt them; ``found.correct["last"]`` has the outcome of every example under every attack (the one
        model is called ``last``), ``found.metrics()`` everything as plain numbers.

    Raises:
        ConfigError: There is no threat model; params or changes are not valid, or play no part; the device is not
            there; the attacks do not suit such data.
        TypeError: The model is not a module.
        ValueError: The arrays cannot be used; the model cannot be copied, or not be told from others by snapshots.
        ModelError: The model's outputs are no logits, a single one, NaN or infinite, or its weights do not stay as
            they are.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, found {type(model).__name__}: put a function into one")
    device = processes.device(str(device), "device")
    test = split(x, y, y, device, "x", "y")
    asked = {"attacks": _suite(attacks), "n_examples": n_examples, "batch_size": batch_size}
    config = _config(threat, asked, params, arguments.as_changes(changes))
    attacked, classes = _attackable(model, test, config.evaluate.seed, device)
    folder = None if snapshots is None else Path(snapshots) / _fingerprint(config, attacked, test)
    return evaluate_model(config, _Float32(attacked), test, classes, pieces=folder)


def _suite(attacks: str | Sequence[str] | Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """What ``evaluate.attacks`` takes, for one name or several."""
    if attacks is None or isinstance(attacks, Mapping):
        return attacks
    return {name: name for name in ([attacks] if isinstance(attacks, str) else attacks)}


def _config(
    threat: Threat | None, asked: Mapping[str, Any], path: str | Path | None, changes: dict[str, Any]
) -> Config:
    """The validated params with the changes in them, and with what is ``asked`` for as an argument: values of
    ``evaluate`` by key, None where the params' stand."""
    for key, value in asked.items():
        if value is not None and changes.setdefault(f"evaluate.{key}", value) is not value:
            raise ConfigError(f"sglr.robustness: evaluate.{key} is given twice, as {key}= and among the changes")
    arguments.require_used(changes, _USED, (), "sglr.robustness")
    values = arguments.params(path)
    arguments.with_threat(values, threat, path, changes, "sglr.robustness")
    for key, value in changes.items():
        arguments.put(values, key, value)
    return arguments.validated(values, path, changes, _USED, "sglr.robustness", threat=threat)


def _attackable(model: nn.Module, test: Split, seed: int, device: torch.device) -> tuple[nn.Module, int]:
    """A copy of the model in eval mode on the device, and how many classes it tells apart; ModelError and ValueError
    where it gives no logits for these images and labels, or changes the images."""
    image = test.images(slice(0, 2)).clone()
    untouched = image._version
    with torch.no_grad(), seeded(seed, device):
        attacked = _copy(model).to(device).float().eval()
        try:
            logits = attacked(image)
        except RuntimeError:
            attacked = _copy(model).to(device).eval()  # it converts images to the type of its weights itself
            logits = attacked(image)
    _require_logits(logits, len(image))
    if image._version != untouched:
        raise ModelError("the model changes the images it is given in place: let it compute new ones")
    classes, largest = logits.shape[1], int(test.true.max())
    if largest >= classes:
        raise ValueError(f"there is a label {largest}, but the model gives {classes} logits")
    return attacked, classes


def _require_logits(outputs: Any, examples: int) -> None:
    """ModelError where a model's outputs for so many images are no logits (n, classes)."""
    single = single_logit(outputs) if isinstance(outputs, Tensor) and len(outputs) == examples else None
    if single:
        raise ModelError(single)
    if not isinstance(outputs, Tensor) or outputs.dim() != 2:
        raise ModelError(f"the model gives no logits (n, classes), but {_form(outputs)}")


class _Float32(nn.Module):
    """The model's logits in float32, such as half-precision ones of autocast."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        return logits.float()


def _copy(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model)
    except Exception as error:  # whatever a model holds
        raise ValueError(f"the model cannot be copied (copy.deepcopy): {error}") from error


def _form(outputs: Any) -> str:
    return f"a tensor of shape {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else type(outputs).__name__


def _fingerprint(config: Config, model: nn.Module, test: Split) -> str:
    """A digest of everything that outcomes depend on: this library's code too, but not that of the model's classes."""
    asked = [getattr(config, section).model_dump(mode="json") for section in _USED]
    code = files.digest(Path(sglr.__file__).parent)
    versions = [packages.version(name) for name in ("torch", "pyautoattack")]
    try:
        return fingerprint(asked, code, versions, str(test.true.device), test.x, test.true, model)[:32]
    except OpaqueError as error:
        raise ValueError(
            f"snapshots cannot tell this model from others, for it holds a {error}: leave the snapshots out"
        ) from None
