"""SGLR: self-guided label refinement for adversarial training, and its comparison with other methods.

Names are loaded on first use, so that ``import sglr`` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # isort: off
    from sglr import (
        attacks as attacks, augmentations as augmentations, config as config, data as data, evaluation as evaluation,
        exchange as exchange, information as information, labels as labels, models as models,
        objectives as objectives, random as random, schedules as schedules, threat as threat, training as training,
        weights as weights,
    )  # fmt: skip

    # isort: on
    from sglr.config.errors import UserError as UserError
    from sglr.models import load_model as load_model
    from sglr.on_arrays.robustness import robustness as robustness
    from sglr.on_arrays.training import train as train

__version__ = "0.1.0"

_EXPORTS = {
    "UserError": "sglr.config.errors",
    "load_model": "sglr.models",
    "robustness": "sglr.on_arrays.robustness",
    "train": "sglr.on_arrays.training",
}
_ROOMS = (
    "attacks",
    "augmentations",
    "config",
    "data",
    "evaluation",
    "exchange",
    "information",
    "labels",
    "models",
    "objectives",
    "random",
    "schedules",
    "threat",
    "training",
    "weights",
)

__all__ = ["__version__", *_EXPORTS, *_ROOMS]


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name in _EXPORTS:
            return getattr(importlib.import_module(_EXPORTS[name]), name)
        if name in _ROOMS:
            return importlib.import_module(f"sglr.{name}")
        raise AttributeError(f"module 'sglr' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
