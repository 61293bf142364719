"""The full rate throughout."""

from sglr.schedules.registry import REGISTRY, ScheduleOptions


@REGISTRY.register("constant")
class ConstantOptions(ScheduleOptions):
    """The same rate throughout."""

    def rate(self, progress: float, epochs: int) -> float:
        return 1.0
