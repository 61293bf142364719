"""Label policies: who says what the training target is."""

from sglr.config import discover
from sglr.labels.refinement import SelfGuidedRefinement
from sglr.labels.registry import NEVER, REGISTRY, Batch, LabelOptions, LabelPolicy, NaturalForward, Step

discover(__name__, __path__)

__all__ = [
    "NEVER",
    "REGISTRY",
    "Batch",
    "LabelOptions",
    "LabelPolicy",
    "NaturalForward",
    "SelfGuidedRefinement",
    "Step",
]
