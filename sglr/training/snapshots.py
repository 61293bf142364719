"""Snapshots of a training under way, so that a killed one continues."""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sglr import files
from sglr.config import ConfigError

_KEEP = 2


def interval(asked: str) -> float:
    """The seconds between two snapshots that SGLR_SNAPSHOT_SECONDS asks for; ConfigError where it is no such number."""
    with contextlib.suppress(ValueError):
        if (seconds := float(asked)) >= 0:
            return seconds
    raise ConfigError(f"SGLR_SNAPSHOT_SECONDS={asked!r} is not a number of seconds.")


class Snapshots:
    """A folder of snapshots of one training; whoever uses it holds its lock.

    Names sort by progress. Writing is atomic; the newest two stay; reading falls back to the older one when the newer
    is damaged, which ``warn`` is told.
    """

    def __init__(
        self, folder: Path, every_seconds: float = 30, warn: Callable[[str], None] = lambda message: None
    ) -> None:
        self.folder = folder
        self.every_seconds = every_seconds
        self._warn = warn
        self._last = time.monotonic()

    def due(self) -> bool:
        """Whether it is time for the next one."""
        return time.monotonic() - self._last >= self.every_seconds

    def save(self, state: dict[str, Any], epoch: int, step: int) -> None:
        """Write the state after ``step`` steps of ``epoch``, then remove all but the newest two."""
        files.save_state(self.folder / f"snapshot-{epoch:06d}-{step:08d}", state)
        self._last = time.monotonic()
        for old in self._all()[:-_KEEP]:
            old.unlink()

    def load(self) -> dict[str, Any] | None:
        """The newest snapshot that is whole, or None. Damaged ones are removed."""
        for path in reversed(self._all()):
            try:
                return files.load_state(path)
            except files.DamagedError:
                self._warn(f"the snapshot {path} is damaged and removed; the one before it is used if there is one.")
                path.unlink(missing_ok=True)
        return None

    def keep(self, epoch: int, state: dict[str, Any]) -> None:
        """Set what stays of an epoch aside until the training ends."""
        files.save_state(self.folder / "kept" / f"{epoch}", state)

    def kept(self) -> dict[int, dict[str, Any]]:
        """What was set aside, by epoch."""
        paths = (self.folder / "kept").glob("[0-9]*")
        return {int(path.name): files.load_state(path) for path in sorted(paths, key=lambda path: int(path.name))}

    def _all(self) -> list[Path]:
        return sorted(self.folder.glob("snapshot-*"))
