"""Snapshots of a training under way, so that a killed one continues."""

import contextlib
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from sglr import files
from sglr.config import ConfigError

_KEEP = 2
_SHARE = 0.01
"""The share of the time, at most, that goes into writing snapshots."""


def interval(asked: str) -> float:
    """The seconds between two snapshots that SGLR_SNAPSHOT_SECONDS asks for; ConfigError where it is no such number."""
    with contextlib.suppress(ValueError):
        if (seconds := float(asked)) >= 0:
            return seconds
    raise ConfigError(f"SGLR_SNAPSHOT_SECONDS={asked!r} is not a number of seconds.")


class Snapshots:
    """A folder of snapshots of one training; whoever uses it holds its lock.

    Names sort by progress. Writing is atomic; the newest two stay; reading falls back to the older one when the newer
    is damaged, which ``warn`` is told. One is due ``every_seconds``, or later where writing is slow: it takes no more
    than 1% of the time. With 0 one is due at every step.
    """

    def __init__(
        self, folder: Path, every_seconds: float = 30, warn: Callable[[str], None] = lambda message: None
    ) -> None:
        self.folder = folder
        self.every_seconds = every_seconds
        self._warn = warn
        self._last = time.monotonic()
        self._wait = every_seconds

    def due(self) -> bool:
        """Whether it is time for the next one."""
        return time.monotonic() - self._last >= self._wait

    def save(self, state: dict[str, Any], epoch: int, step: int) -> None:
        """Write the state after ``step`` steps of ``epoch``, then remove all but the newest two."""
        began = time.monotonic()
        files.save_state(self.folder / f"snapshot-{epoch:06d}-{step:08d}", state)
        self._last = time.monotonic()
        if self.every_seconds:
            self._wait = max(self.every_seconds, (self._last - began) / _SHARE)
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
        files.save_state(self._kept(epoch), state)

    def kept(self, epochs: Iterable[int]) -> dict[int, dict[str, Any]]:
        """What was set aside of these epochs; FileError where that is missing or damaged."""
        return {epoch: self._read_kept(epoch) for epoch in epochs}

    def _read_kept(self, epoch: int) -> dict[str, Any]:
        path = self._kept(epoch)
        try:
            return files.load_state(path)
        except files.FileError as error:
            reason = "is damaged" if isinstance(error, files.DamagedError) else "cannot be read"
            raise files.FileError(
                f"{path}, the checkpoint of epoch {epoch} (train.keep_epochs), {reason}, and no later snapshot holds"
                f" it: put it back, or remove {self.folder} to train from the beginning."
            ) from error

    def _kept(self, epoch: int) -> Path:
        return self.folder / "kept" / f"{epoch}"

    def _all(self) -> list[Path]:
        return sorted(self.folder.glob("snapshot-*"))
