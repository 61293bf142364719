"""How a training ends early."""

from sglr.config.errors import UserError


class TrainingError(UserError, RuntimeError):
    """A training that cannot go on: numbers that are not finite, data that does not fit."""


class Interrupted(RuntimeError):  # noqa: N818 (not an error)
    """The training was asked to stop, and wrote a snapshot first where it has a place for one."""
