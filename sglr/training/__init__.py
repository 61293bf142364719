"""The one training loop, its snapshots, and the items of the study made with it."""

from sglr.training.errors import Interrupted, TrainingError
from sglr.training.hooks import Hooks
from sglr.training.items import train, warm_up
from sglr.training.loop import fit
from sglr.training.plan import Plan
from sglr.training.result import TrainingResult
from sglr.training.snapshots import Snapshots

__all__ = ["Hooks", "Interrupted", "Plan", "Snapshots", "TrainingError", "TrainingResult", "fit", "train", "warm_up"]
