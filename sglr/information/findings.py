"""Numbers by name, each with its sample size and, where examples can be redrawn, a bootstrap interval."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sglr.evaluation.statistics import wilson
from sglr.information import bootstrap, calibration
from sglr.information.checks import Integers
from sglr.information.entropy import mutual_information
from sglr.random import numpy_stream


@dataclass
class Findings:
    """The results for one checkpoint or run. The resampling of a name depends on ``seed`` and that name only."""

    seed: int
    numbers: dict[str, float] = field(default_factory=dict)
    intervals: dict[str, dict[str, float]] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)

    def mean(self, name: str, values: ArrayLike) -> None:
        """Add the mean of values (N,) and its interval, Wilson's where they are bool; nothing when there are none."""
        column = np.asarray(values)
        if not len(column):
            return
        self.number(name, float(column.mean()), len(column))
        if column.dtype == bool:
            low, high = wilson(int(column.sum()), len(column))
            self.intervals[name] = {"low": low, "high": high}
        else:
            self.intervals[name] = bootstrap.mean_interval(column, self._stream(name))

    def share(self, name: str, parts: ArrayLike, wholes: ArrayLike) -> None:
        """Add sum(parts) / sum(wholes), both (N,), and its interval.

        Nothing when the wholes, at least 0 each, add up to 0; no interval when one of them is 0, as a resample's may.
        """
        numerators, denominators = np.asarray(parts, dtype=np.float64), np.asarray(wholes, dtype=np.float64)
        if denominators.sum() > 0:
            self.number(name, float(numerators.sum() / denominators.sum()), len(numerators))
            if denominators.min() > 0:
                self.intervals[name] = bootstrap.ratio_interval(numerators, denominators, self._stream(name))

    def number(self, name: str, value: float, n: int) -> None:
        """Add a number that n examples gave, without interval."""
        self.numbers[name], self.sizes[name] = value, n

    def ece(self, name: str, probs: ArrayLike, labels: ArrayLike, bins: int) -> None:
        """Add the expected calibration error and its interval; redrawing examples adds to its upward bias."""
        values, members = calibration.residuals(probs, labels, bins)
        self.number(name, calibration.ece(probs, labels, bins), len(values))
        self.intervals[name] = bootstrap.groups_interval(values, members, self._stream(name))

    def shared_information(self, name: str, table: Integers) -> None:
        """Add the plug-in mutual information of a contingency table (C, C) and its interval."""
        self.number(name, mutual_information(table), int(table.sum()))
        self.intervals[name] = bootstrap.counts_interval(table, mutual_information, self._stream(name))

    def difference(self, name: str, first: ArrayLike, second: ArrayLike) -> None:
        """Add mean(first) - mean(second) of independent samples and its interval; the size is that of the smaller."""
        a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
        self.number(name, float(a.mean() - b.mean()), min(len(a), len(b)))
        self.intervals[name] = bootstrap.difference_interval(a, b, self._stream(name))

    def rows(self) -> list[dict[str, Any]]:
        """quantity, value, low, high (None without interval), n."""
        return [
            {"quantity": name, "value": value, "low": ends.get("low"), "high": ends.get("high"), "n": self.sizes[name]}
            for name, value in self.numbers.items()
            for ends in [self.intervals.get(name, {})]
        ]

    def _stream(self, name: str) -> np.random.Generator:
        return numpy_stream(self.seed, f"bootstrap {name}")
