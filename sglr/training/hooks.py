"""What a training is given by whoever runs it, beside what it trains."""

from collections.abc import Callable
from dataclasses import dataclass

from sglr.training.snapshots import Snapshots
from sglr.training.state import Row


@dataclass(frozen=True)
class Hooks:
    """Where a training keeps its state, whom it tells how far it is, and who stops it; by default nowhere, nobody."""

    snapshots: Snapshots | None = None
    """Where a killed training is continued from; for a team, a folder that all processes see."""
    on_resume: Callable[[int, int], None] = lambda epoch, step: None
    """Called with the epoch and the step, both from 1, at which a snapshot is continued."""
    on_epoch: Callable[[Row], None] = lambda row: None
    """Called with each row of the history, and again for the epochs that a snapshot already holds."""
    should_stop: Callable[[], bool] = lambda: False
    """Asked at every step; when it is true, a snapshot is written and Interrupted raised."""


NO_HOOKS = Hooks()
