"""How numbers are written."""

import pytest

from sglr.report import wording


@pytest.mark.parametrize(
    ("value", "text"), [(0.7241, "72.4"), (-0.005, "−0.5"), (-0.0001, "0.0"), (0.0, "0.0"), (1.0, "100.0"), (None, "–")]
)
def test_percent(value: float | None, text: str) -> None:
    assert wording.percent(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.04951, "0.0495"), (12345.6, "12,346"), (-1.9, "−1.90"), (0, "0"), (2.5e-7, "2.50e−07"), (None, "–")],
)
def test_number(value: float | None, text: str) -> None:
    assert wording.number(value) == text


def test_spread_has_equally_many_decimals() -> None:
    assert wording.number_spread(0.0418, 0.002) == "0.0418 ± 0.0020"
    assert wording.number_spread(1.9, 3e-16) == "1.90 ± 0.00"
    assert wording.number_spread(1.9, None) == "1.90"
    assert wording.percent_spread(0.5, 0.01) == "50.0 ± 1.0"
    assert wording.percent_spread(None, None) == "–"


def test_interval_and_count() -> None:
    assert wording.interval(-0.002, 0.05) == "[−0.2, 5.0]"
    assert wording.interval(None, None) == ""
    assert (wording.count(81.0), wording.count(80.5)) == ("81", "80.5")


def test_an_interval_without_width_says_why() -> None:
    assert wording.bounds({"low": 0.0, "high": 0.0}) == "[no example differs]"
    assert wording.bounds({"low": -1.0, "high": -1.0}) == "[every example differs]"
    assert wording.bounds({"low": -1.0, "high": 0.0}) == "[−100.0, 0.0]"


def test_an_end_close_to_zero_shows_its_side() -> None:
    assert wording.bounds({"low": 0.0004, "high": 0.05}) == "[0.04, 5.00]"
    assert wording.bounds({"low": -0.00004, "high": 0.05}) == "[−0.004, 5.000]"
    assert wording.bounds({"low": 1e-12, "high": 0.05}) == "[0.0000, 5.0000]"


def test_plain_values() -> None:
    assert wording.plain({"name": "digits", "shape": [1, 8, 8], "flip": False, "map": None}) == (
        "name digits; shape 1, 8, 8; flip no; map –"
    )
