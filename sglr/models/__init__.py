"""Models by name. Each takes images in [0, 1], normalises them itself and is ``head(features(x))``."""

from sglr.config import discover
from sglr.models.checkpoint import load_model, put, remove, save, unwrap
from sglr.models.factory import build, from_spec, initial, spec
from sglr.models.normalize import Normalization, Normalize
from sglr.models.registry import REGISTRY, Classifier, ModelOptions

discover(__name__, __path__)

__all__ = [
    "REGISTRY",
    "Classifier",
    "ModelOptions",
    "Normalization",
    "Normalize",
    "build",
    "from_spec",
    "initial",
    "load_model",
    "put",
    "remove",
    "save",
    "spec",
    "unwrap",
]
