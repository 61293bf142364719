"""Half a cosine."""

import math
from typing import Annotated

from pydantic import Field

from sglr.schedules.registry import REGISTRY, ScheduleOptions, check_rise


@REGISTRY.register("cosine")
class CosineOptions(ScheduleOptions):
    """From 0 up to the full rate along a line over ``rise_epochs`` epochs (0: none), then half a cosine down to 0."""

    rise_epochs: Annotated[float, Field(ge=0)] = 0.0

    def rate(self, progress: float, epochs: int) -> float:
        rise = self.rise_epochs
        if progress < rise:
            return progress / rise
        return (1 + math.cos(math.pi * (progress - rise) / (epochs - rise))) / 2

    def check_epochs(self, epochs: int) -> None:
        check_rise(self.rise_epochs, epochs)
