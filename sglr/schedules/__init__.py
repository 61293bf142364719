"""Learning-rate schedules: what the learning rate is multiplied by as training goes on."""

from sglr.config import discover
from sglr.schedules.registry import REGISTRY, ScheduleOptions

discover(__name__, __path__)

__all__ = ["REGISTRY", "ScheduleOptions"]
