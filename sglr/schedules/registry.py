"""The interface of a learning-rate schedule."""

from sglr.config import Options, Registry

REGISTRY = Registry("schedule")


class ScheduleOptions(Options):
    """Base of schedule options."""

    def rate(self, progress: float, epochs: int) -> float:
        """What ``train.optimizer.lr`` is multiplied by: finite and at least 0, or the training ends with an error.

        A pure function: a training that is resumed, and each process of several, asks again.

        Args:
            progress: Epochs done, in [0, epochs): 0 at the start, 1.5 in the middle of the second epoch.
            epochs: Of the whole training, at least 1.
        """
        raise NotImplementedError

    def check_epochs(self, epochs: int) -> None:
        """ValueError, naming the option as ``schedule.<option>``, when the schedule does not fit so many epochs."""


def check_rise(rise_epochs: float, epochs: int) -> None:
    """ValueError for a rise that takes all of the epochs."""
    if rise_epochs >= epochs:
        raise ValueError(f"schedule.rise_epochs {rise_epochs:g} must be less than the {epochs} epochs")
