"""Label policies: who says what the training target is."""

from sglr.config import discover
from sglr.labels.refinement import SelfGuidedRefinement
from sglr.labels.registry import REGISTRY, LabelOptions, LabelPolicy, Step

discover(__name__, __path__)

__all__ = ["REGISTRY", "LabelOptions", "LabelPolicy", "SelfGuidedRefinement", "Step"]
