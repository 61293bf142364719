"""How numbers are written: accuracies as percent and differences as points with one decimal, intervals in brackets."""

from collections.abc import Callable
from typing import Any

ABSENT = "–"
Write = Callable[[float | None], str]


def percent(value: float | None) -> str:
    """0.7241 -> '72.4'; None -> a dash. Differences of accuracies (points) are written the same way."""
    if value is None:
        return ABSENT
    text = f"{100 * value:.1f}"
    return "0.0" if text == "-0.0" else text.replace("-", "−")


def number(value: float | None) -> str:
    """Three significant digits, for quantities that are not accuracies; whole numbers from 1000 on."""
    if value is None:
        return ABSENT
    return (f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}").replace("-", "−")


def spread(mean: float | None, deviation: float | None, write: Write = percent) -> str:
    """'72.4 ± 3.2', or '72.4' where one seed leaves no deviation."""
    return write(mean) if mean is None or deviation is None else f"{write(mean)} ± {write(deviation)}"


def interval(low: float | None, high: float | None, write: Write = percent) -> str:
    """'[17.3, 23.6]', or nothing."""
    return "" if low is None or high is None else f"[{write(low)}, {write(high)}]"


def joined(*parts: str) -> str:
    """The parts that are not empty, with a space between."""
    return " ".join(part for part in parts if part)


def quoted(method: str) -> str:
    """A method's name inside a sentence, where a bare 'at' would be read as a word."""
    return f"‘{method}’"


def counted(count: int, noun: str) -> str:
    """'1 seed', '2 seeds'."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


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
