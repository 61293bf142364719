"""Warnings about valid settings that are probably mistakes; never errors."""

from sglr.config.sections import StepSchedule
from sglr.config.study import Config

# With fewer validations than these, choosing a best epoch is unreliable.
_CHOICES = 5


def doubts(config: Config) -> list[str]:
    """Warnings about params that do less than they seem to, each beginning with its key."""
    return [*_radius(config), *_schedule(config), *_selection(config)]


def _radius(config: Config) -> list[str]:
    eps = config.threat.eps_255
    if config.threat.norm == "linf" and not 1 <= eps <= 255:
        return [
            f"threat.eps_255 {eps:g} is {eps:g}/255, {'less than one step of a byte' if eps < 1 else 'all images'}:"
            " radii are given in 255ths (8 for 8/255)."
        ]
    return []


def _schedule(config: Config) -> list[str]:
    schedule, epochs = config.train.schedule, config.train.epochs
    if not isinstance(schedule, StepSchedule):
        return []
    late = [milestone for milestone in schedule.milestones if milestone > epochs]
    if not late:
        return []
    left = "drops less often than that" if len(late) < len(schedule.milestones) else "never drops"
    return [
        f"train.schedule.milestones {', '.join(map(str, late))} come after the last of {epochs} epochs: the learning"
        f" rate {left}."
    ]


def _selection(config: Config) -> list[str]:
    every, epochs = config.train.selection.every, config.train.epochs
    measured = -(-epochs // every)
    if every == 1 or measured >= _CHOICES or not config.data.validation_size:
        return []
    return [
        f"train.selection.every {every} measures {measured} of {epochs} epochs: so few candidates make"
        " the best epoch, and the gap, unreliable."
    ]
