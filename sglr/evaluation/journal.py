"""What an evaluation has finished, piece by piece on disk, so that one that was killed continues."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sglr import files

Outcome = tuple[np.ndarray, list[str]]


@dataclass(frozen=True)
class Journal:
    """A folder of finished pieces: bool outcomes (n,) and warnings, one file each; None keeps nothing.

    Whoever uses it holds the item's lock and a folder that belongs to these inputs, settings and code alone.
    """

    folder: Path | None

    def below(self, *names: str) -> "Journal":
        """The journal of a part of the work."""
        return self if self.folder is None else Journal(self.folder.joinpath(*names))

    def once(self, piece: str, n: int, work: Callable[[], Outcome]) -> Outcome:
        """What ``work`` returned for a piece of n examples, from the journal when it is there and whole."""
        if self.folder is None:
            return work()
        path = self.folder / f"{piece}.json"
        known = _read(path, n)
        if known is not None:
            return known
        correct, warnings = work()
        files.write_json(path, {"correct": "".join("01"[bool(value)] for value in correct), "warnings": warnings})
        return correct, warnings


def _read(path: Path, n: int) -> Outcome | None:
    """A piece on disk; None when it is missing, damaged or of another size, and must be done again."""
    try:
        found = files.read_json(path)
        correct, warnings = found["correct"], [str(warning) for warning in found["warnings"]]
    except (files.FileError, KeyError, TypeError):
        return None
    if not isinstance(correct, str) or len(correct) != n or set(correct) - {"0", "1"}:
        return None
    return np.array([value == "1" for value in correct], dtype=bool), warnings
