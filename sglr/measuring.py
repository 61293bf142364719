"""Measuring any model on arrays, without a pipeline: ``sglr.robustness``."""

import copy
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import sglr
from sglr import files, given, processes
from sglr.config import Config
from sglr.data import Split
from sglr.evaluation import Evaluation
from sglr.evaluation.measurement import drawn_anew
from sglr.evaluation.suite import evaluate_model
from sglr.files import FileError
from sglr.threat import Threat

_USED = ("threat", "evaluate")
# What torch keeps in every module, but for weights and buffers: hooks, by numbers that differ from run to run.
_TORCHS_OWN = vars(nn.Module()).keys() - {"_parameters", "_buffers"}


def robustness(
    model: nn.Module,
    x: given.AnyArray,
    y: given.AnyArray,
    *,
    threat: Threat | None = None,
    params: str | Path | None = None,
    changes: Mapping[str, Any] | None = None,
    device: str | torch.device = "cpu",
    journal: str | Path | None = None,
) -> Evaluation:
    """Attack any module, images in [0, 1] in and logits out, with a whole suite, as the pipeline attacks its models.

    x: (n, C, H, W), or (n, H, W, C) with one or three channels, uint8 or float in [0, 1], NumPy or torch; y: (n,) whole
    numbers from 0. A copy of the model (``copy.deepcopy``) is attacked, in eval mode and float32 on ``device`` (cpu,
    cuda, cuda:1 ... or auto, a GPU where there is one): the model stays as it is.

    ``threat`` is ``sglr.threat.Linf(8 / 255)`` or another ball; it may be left out where ``params`` or ``changes`` give
    one. ``params`` is the path of a params file; default: the shipped one, with the radii of its sweep in proportion to
    the threat's. ``changes`` go on top of it, by dotted key: ``{"evaluate.attacks": {"autoattack": "autoattack"}}``. Of
    the params, ``threat`` and ``evaluate`` are used. With a ``journal`` folder a run that
    was interrupted goes on where it was; it may hold those of several models and suites. It sees the tensors, numbers
    and texts that the model's modules hold, not a change of their code: take another folder then. Not for several
    threads of one process at a time: torch's global generators and AutoAttack's warnings are shared.

    The model counts as ``last``: ``found.metrics()["last"]["autoattack"]`` is an accuracy, with its interval under
    ``["interval"]["last"]``, ``found.flags`` what makes it doubtful, ``found.correct["last"]`` the outcome of every
    example. Raises ConfigError without a threat model, for params, for changes that play no part, for a device that is
    not there and for attacks that such data does not suit; ValueError for arrays that cannot be used, and a model that
    cannot be copied; FileError where the model's outputs cannot count (see ``sglr.evaluation.evaluate``).
    """
    device = processes.device(str(device), "device")
    test = given.split(x, y, y, device, "x", "y")
    changes = changes or {}
    given.require_used(changes, _USED, (), "sglr.robustness")
    values = given.params(params)
    given.with_threat(values, threat, params, changes, "sglr.robustness")
    for key, value in changes.items():
        given.put(values, key, value)
    config = given.validated(values, params, _USED, "sglr.robustness", stacklevel=3)
    attacked = _copy(model).to(device).float().eval()
    image = test.images(slice(0, 1)).clone()
    untouched = image._version
    with torch.no_grad(), drawn_anew(config.evaluate.seed, device):
        logits = attacked(image)
    if not isinstance(logits, Tensor) or logits.dim() != 2:
        raise FileError(f"the model gives no logits (n, classes), but {_form(logits)}")
    if image._version != untouched:
        raise FileError("the model changes the images it is given in place: let it compute new ones")
    classes, largest = logits.shape[1], int(test.true.max())
    if largest >= classes:
        raise ValueError(f"there is a label {largest}, but the model gives {classes} logits")
    folder = None if journal is None else Path(journal) / _fingerprint(config, attacked, test)
    return evaluate_model(config, _Float32(attacked), test, classes, journal=folder)


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
    """Of everything that outcomes depend on, the code of this library included; not the code of the model."""
    asked = [getattr(config, section).model_dump(mode="json") for section in _USED]
    code = files.digest(Path(sglr.__file__).parent)
    total = hashlib.sha256(json.dumps([asked, repr(model), str(test.true.device), code]).encode())
    held = [{key: value for key, value in vars(module).items() if key not in _TORCHS_OWN} for module in model.modules()]
    for part in _told([test.x, test.true, held]):
        total.update(part)
    return total.hexdigest()[:32]


def _told(value: Any) -> Iterator[bytes]:
    """Tensors, arrays, numbers and texts in nested values."""
    if isinstance(value, Tensor):
        value = value.detach().cpu().contiguous()
        yield str((value.dtype, value.shape)).encode() + value.reshape(-1).view(torch.uint8).numpy().tobytes()
    elif isinstance(value, np.ndarray):
        yield str((value.dtype, value.shape)).encode() + value.tobytes()
    elif isinstance(value, Mapping):
        yield from _told([part for pair in value.items() for part in pair])
    elif isinstance(value, list | tuple):
        yield f"{len(value)} values".encode()
        for part in value:
            yield from _told(part)
    elif value is None or isinstance(value, bool | int | float | complex | str | bytes):
        yield repr(value).encode()
