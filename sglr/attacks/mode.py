"""The mode a model is in during an attack: restored afterwards, or warned of."""

import contextlib
import warnings
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.dropout import _DropoutNd

from sglr.config.fields import BatchNormMode


@contextlib.contextmanager
def attack_mode(model: nn.Module, bn: BatchNormMode) -> Iterator[None]:
    """Within the block the model is in ``bn`` mode; afterwards every module's mode is what it was.

    In train mode batch norm normalises by the batch and leaves its running statistics unchanged; what other layers
    write into their buffers is undone. ValueError for another mode.
    """
    if bn not in ("eval", "train"):
        raise ValueError(f"bn must be 'eval' or 'train', found {bn!r}")
    modes = [(module, module.training) for module in model.modules()]
    tracking = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    kept = [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        if bn == "train" and not isinstance(module, _BatchNorm)
        for name, buffer in module.named_buffers(recurse=False)
    ]
    model.train(bn == "train")
    try:
        if bn == "train":
            for norm in tracking:
                norm.track_running_stats = False
        yield
    finally:
        for norm in tracking:
            norm.track_running_stats = True
        with torch.no_grad():
            for module, name, buffer, value in kept:
                setattr(module, name, buffer.copy_(value))
        for module, training in modes:
            module.training = training


def warn_in_train_mode(model: nn.Module, attack: str) -> None:
    """UserWarning, shown once for a line that calls the attack, where train mode changes what a model computes.

    For attacks that only evaluate: those of training are run in either mode on purpose. Statistics are those of batch
    and instance norm that keep some; a model that computes alike in both modes is not warned of.
    """
    modules = model.modules() if isinstance(model, nn.Module) else ()  # a function has no mode that could be seen
    training = [module for module in modules if module.training]
    keeping = any(isinstance(module, _NormBase) and module.track_running_stats for module in training)
    drawing = any(isinstance(module, _DropoutNd) and module.p > 0 for module in training)
    if not keeping and not drawing:
        return
    done = ["changes its normalisation statistics"] * keeping + ["attacks a network that dropout changes"] * drawing
    warnings.warn(
        f"the model is in train mode: {attack} {' and '.join(done)}, so the result is not that of the trained model;"
        " call model.eval() before the attack",
        stacklevel=4,  # this, the attack, what takes it out of inference mode, the caller
    )
