"""Mean and sample deviation of one value per seed."""

from collections.abc import Sequence
from typing import Any

from sglr.evaluation.statistics import mean_std


def spread(values: Sequence[float]) -> dict[str, Any]:
    """{mean, deviation} of at least one value; the deviation of a single one is None."""
    return dict(zip(("mean", "deviation"), mean_std(values), strict=True))


def over_seeds(values: Sequence[float | None]) -> dict[str, Any]:
    """{mean, deviation, seeds}, seeds counting those measured (not None); None where none was."""
    known = [float(value) for value in values if value is not None]
    return {**(spread(known) if known else {"mean": None, "deviation": None}), "seeds": len(known)}
