"""What an evaluation has finished, piece by piece on disk, so that one that was killed continues."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sglr import files
from sglr.evaluation.outcome import Outcome


@dataclass(frozen=True)
class Pieces:
    """A folder of finished pieces, one file each; None keeps nothing.

    Whoever uses it holds the item's lock and a folder that belongs to these inputs, settings and code alone. Several
    processes may fill it together: a piece is the same whoever writes it.
    """

    folder: Path | None

    def below(self, *names: str) -> "Pieces":
        """The pieces of a part of the work."""
        return self if self.folder is None else Pieces(self.folder.joinpath(*names))

    def __len__(self) -> int:
        """How many pieces there are, those of its parts included."""
        return 0 if self.folder is None else sum(1 for _ in self.folder.rglob("*.npz"))

    def once(self, piece: str, n: int, work: Callable[[], Outcome]) -> Outcome:
        """What ``work`` returned for a piece of n examples, from its file where that is there and whole."""
        if self.folder is None:
            return work()
        path = self.folder / f"{piece}.npz"
        known = _read(path, n)
        if known is not None:
            return known
        done = work()
        arrays = {"correct": done.correct, "images": done.images, "margin": done.margin}
        files.write_arrays(path, arrays | {"warnings": np.array(done.warnings, dtype=np.str_)})
        return done


NOWHERE = Pieces(None)


def _read(path: Path, n: int) -> Outcome | None:
    """A piece on disk; None when it is missing, damaged or of another size, and must be done again."""
    try:
        found = files.read_arrays(path)
        outcome = Outcome(found["correct"], tuple(map(str, found["warnings"])), found["images"], found["margin"])
    except (files.FileError, KeyError, TypeError):
        return None
    whole = outcome.correct.shape == (n,) and outcome.correct.dtype == bool
    return outcome if whole and len(outcome.images) == len(outcome.margin) <= n else None
