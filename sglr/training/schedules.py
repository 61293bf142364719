"""Learning rates as pure functions of progress."""

import math

from sglr.config.sections import CosineSchedule, LinearSchedule, Schedule, StepSchedule


def learning_rate(schedule: Schedule, base: float, progress: float, epochs: int) -> float:
    """The rate at ``progress`` epochs done (0 at the start, 1.5 in the middle of the second epoch) of ``epochs``.

    A step schedule drops *entering* its milestone epochs, counted from 1: milestone 100 acts from progress 99 on.
    """
    if isinstance(schedule, StepSchedule):
        epoch = math.floor(progress) + 1
        return base * schedule.factor ** sum(epoch >= milestone for milestone in schedule.milestones)
    if isinstance(schedule, LinearSchedule):
        rise = schedule.rise_epochs
        return base * (progress / rise if progress < rise else (epochs - progress) / (epochs - rise))
    if isinstance(schedule, CosineSchedule):
        return base * (1 + math.cos(math.pi * progress / epochs)) / 2
    return base
