"""Drops at the start of some epochs."""

import math
from typing import Annotated

from pydantic import Field

from sglr.config.fields import Epochs
from sglr.schedules.registry import REGISTRY, ScheduleOptions


@REGISTRY.register("step")
class StepOptions(ScheduleOptions):
    """Learning rate times ``factor`` at the start of each of the milestone epochs."""

    milestones: Epochs
    factor: Annotated[float, Field(gt=0, lt=1)]

    def rate(self, progress: float, epochs: int) -> float:
        """It drops *entering* the milestone epochs, counted from 1: milestone 100 acts from progress 99 on."""
        epoch = math.floor(progress) + 1
        return self.factor ** sum(epoch >= milestone for milestone in self.milestones)
