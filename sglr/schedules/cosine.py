"""Half a cosine."""

import math

from sglr.schedules.registry import REGISTRY, ScheduleOptions


@REGISTRY.register("cosine")
class CosineOptions(ScheduleOptions):
    """Half a cosine from the full rate to 0 at the end of the last epoch."""

    def rate(self, progress: float, epochs: int) -> float:
        return (1 + math.cos(math.pi * progress / epochs)) / 2
