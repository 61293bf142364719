"""How numbers are written: accuracies as percent and differences as points with one decimal, intervals in brackets."""

import math
from collections.abc import Callable
from typing import Any

ABSENT = "–"
Write = Callable[[float | None], str]


def percent(value: float | None) -> str:
    """0.7241 -> '72.4'; None -> a dash. Differences of accuracies (points) are written the same way."""
    return ABSENT if value is None else _decimals(100 * value, 1)


def number(value: float | None, scale: float | None = None) -> str:
    """A quantity that is not an accuracy: three significant digits of ``scale`` (of itself by default).

    0.04951 -> '0.0495', 12345.6 -> '12,346'; None -> a dash.
    """
    if value is None:
        return ABSENT
    scale = abs(value) if scale is None else scale
    if scale == 0:
        return "0"
    if scale < 1e-4:
        return f"{value:.2e}".replace("-", "−")
    return _decimals(value, max(0, 2 - math.floor(math.log10(scale))))


def count(value: float | None) -> str:
    """A number of things, or a mean of such numbers: 81 -> '81', 80.5 -> '80.5'."""
    return ABSENT if value is None else _decimals(value, 0 if value == int(value) else 1)


def percent_spread(mean: float | None, deviation: float | None) -> str:
    """Percent: '72.4 ± 3.2', or '72.4' where one seed leaves no deviation."""
    return percent(mean) if deviation is None else f"{percent(mean)} ± {percent(deviation)}"


def number_spread(mean: float | None, deviation: float | None) -> str:
    """The same for other quantities, with equally many decimals: '0.0418 ± 0.0020'."""
    if mean is None or deviation is None:
        return number(mean)
    scale = max(abs(mean), deviation)
    return f"{number(mean, scale)} ± {number(deviation, scale)}"


def interval(low: float | None, high: float | None, write: Write = percent) -> str:
    """'[17.3, 23.6]', or nothing."""
    return "" if low is None or high is None else f"[{write(low)}, {write(high)}]"


def bounds(row: dict[str, Any]) -> str:
    """The interval of a difference, '[17.3, 23.6]'. Where no example differs, or every one in the same way, it has no
    width, which would claim too much."""
    low, high = row["low"], row["high"]
    if low == high:
        return "[no example differs]" if low == 0 else "[every example differs]"
    # An end that would be written as 0 and is not is what a reader looks at.
    decimals = 1
    while decimals < 4 and any(end and not _decimals(100 * end, decimals).strip("−0.,") for end in (low, high)):
        decimals += 1
    return interval(low, high, lambda end: _decimals(100 * (end or 0.0), decimals))


def joined(*parts: str) -> str:
    """The parts that are not empty, with a space between."""
    return " ".join(part for part in parts if part)


def quoted(method: str) -> str:
    """A method's name inside a sentence, where a bare 'at' would be read as a word."""
    return f"‘{method}’"


def plain(value: Any) -> str:
    """A JSON value without brackets and quotes: {'train': 300, 'shape': [1, 8]} -> 'train 300; shape 1, 8'."""
    if isinstance(value, dict):
        return "; ".join(f"{key} {plain(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return ", ".join(plain(inner) for inner in value)
    if value is None:
        return ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _decimals(value: float, decimals: int) -> str:
    text = f"{value:,.{decimals}f}"
    return text.removeprefix("-") if not text.strip("-0.,") else text.replace("-", "−")
