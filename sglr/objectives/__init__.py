"""Training objectives: what is forwarded, what the attack maximises, how targets become a loss."""

from sglr.config import discover
from sglr.objectives.inner import InnerMaximisation
from sglr.objectives.registry import REGISTRY, Objective, ObjectiveOptions, Outputs, soft_cross_entropy

discover(__name__, __path__)

__all__ = ["REGISTRY", "InnerMaximisation", "Objective", "ObjectiveOptions", "Outputs", "soft_cross_entropy"]
