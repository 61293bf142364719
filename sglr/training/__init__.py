"""The one training loop, its schedules, snapshots, and the items of the study made with it."""

from sglr.training.items import train, warm_up
from sglr.training.loop import Interrupted, Trained, TrainingError, fit
from sglr.training.plan import Plan
from sglr.training.snapshots import Snapshots

__all__ = ["Interrupted", "Plan", "Snapshots", "Trained", "TrainingError", "fit", "train", "warm_up"]
