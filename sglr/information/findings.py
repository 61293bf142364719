"""Numbers by name, with a bootstrap interval beside those that are means or shares over examples."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from sglr.information import bootstrap
from sglr.random import numpy_stream


@dataclass
class Findings:
    """What was found about one checkpoint or run. The resampling of a name depends on ``seed`` and that name only."""

    seed: int
    numbers: dict[str, float] = field(default_factory=dict)
    intervals: dict[str, dict[str, float]] = field(default_factory=dict)

    def mean(self, name: str, values: ArrayLike) -> None:
        """Add the mean of values (N,) and its interval; nothing when there are no values."""
        column = np.asarray(values, dtype=np.float64)
        if len(column):
            self.numbers[name] = float(column.mean())
            self.intervals[name] = bootstrap.mean_interval(column, self._stream(name))

    def share(self, name: str, parts: ArrayLike, wholes: ArrayLike) -> None:
        """Add sum(parts) / sum(wholes), both (N,), and its interval.

        Nothing when the wholes, at least 0 each, add up to 0; no interval when one of them is 0, as a resample's may.
        """
        numerators, denominators = np.asarray(parts, dtype=np.float64), np.asarray(wholes, dtype=np.float64)
        if denominators.sum() > 0:
            self.numbers[name] = float(numerators.sum() / denominators.sum())
            if denominators.min() > 0:
                self.intervals[name] = bootstrap.ratio_interval(numerators, denominators, self._stream(name))

    def _stream(self, name: str) -> np.random.Generator:
        return numpy_stream(self.seed, f"bootstrap {name}")
