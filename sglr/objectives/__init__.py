"""Training objectives: what is forwarded, what the attack maximises, how targets become a loss."""

from sglr.config import discover
from sglr.objectives.inner import InnerMaximisation
from sglr.objectives.losses import soft_cross_entropy
from sglr.objectives.registry import REGISTRY, Objective, ObjectiveOptions, Outputs

discover(__name__, __path__)

__all__ = ["REGISTRY", "InnerMaximisation", "Objective", "ObjectiveOptions", "Outputs", "soft_cross_entropy"]
