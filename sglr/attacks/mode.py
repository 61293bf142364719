"""The mode a model is in during an attack, restored afterwards."""

import contextlib
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

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
