"""Straight lines up and down, the one-cycle shape."""

from typing import Annotated

from pydantic import Field

from sglr.schedules.registry import REGISTRY, ScheduleOptions, check_rise


@REGISTRY.register("linear")
class LinearOptions(ScheduleOptions):
    """From 0 up to the full rate over ``rise_epochs`` epochs (0: none), then down to 0 at the end of the last epoch."""

    rise_epochs: Annotated[float, Field(ge=0)]

    def rate(self, progress: float, epochs: int) -> float:
        rise = self.rise_epochs
        return progress / rise if progress < rise else (epochs - progress) / (epochs - rise)

    def check_epochs(self, epochs: int) -> None:
        check_rise(self.rise_epochs, epochs)
