"""SGLR: self-guided label refinement for adversarial training, and its comparison with other methods.

Names are loaded on first use, so that ``import sglr`` costs nothing.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_EXPORTS = {"load_model": "sglr.models", "robustness": "sglr.measuring", "train": "sglr.fitting"}
_ROOMS = (
    "attacks",
    "config",
    "data",
    "evaluation",
    "exchange",
    "files",
    "information",
    "labels",
    "models",
    "objectives",
    "random",
    "report",
    "threat",
    "tracking",
    "training",
    "weights",
)

__all__ = ["__version__", *_EXPORTS, *_ROOMS]


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    if name in _ROOMS:
        return importlib.import_module(f"sglr.{name}")
    raise AttributeError(f"module 'sglr' has no attribute {name!r}")
