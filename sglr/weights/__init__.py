"""Weight policies: what happens to the weights beside the optimiser's step."""

from sglr.config import discover
from sglr.weights.registry import REGISTRY, WeightOptions, WeightPolicy

discover(__name__, __path__)

__all__ = ["REGISTRY", "WeightOptions", "WeightPolicy"]
