"""Contrast of everything on the page (WCAG 2.2), and series that differ for colour-blind readers."""

import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from sglr.report import drawing
from sglr.report.page import TEMPLATES

# Machado, Oliveira and Fernandes 2009, severity 1: what dichromats see, on linear RGB.
VISIONS = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
# Differences in CIE 1976 L*a*b*; one of about 2 is just seen side by side.
APART = 12


def variables(text: str) -> dict[str, str]:
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", text))


def schemes() -> dict[str, dict[str, str]]:
    light, dark = re.split(r"@media \(prefers-color-scheme: dark\)", Path(TEMPLATES / "style.css").read_text())
    return {"light": variables(light), "dark": variables(dark.split("* {")[0])}


def linear(colour: str) -> np.ndarray:
    values = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted(float(linear(colour) @ [0.2126, 0.7152, 0.0722]) for colour in (one, other))
    return (lighter + 0.05) / (darker + 0.05)


def lab(rgb: np.ndarray) -> np.ndarray:
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = matrix @ np.clip(rgb, 0, 1) / [0.9505, 1, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def test_the_formulas_give_known_values():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
    assert lab(linear("#ff0000")) == pytest.approx([53.2, 80.1, 67.2], abs=0.2)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_a_contrast_of_four_and_a_half(scheme):
    colours = schemes()[scheme]
    for text in ("ink", "soft", "link"):
        for ground in ("paper", "card"):
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    for text in ("ink", "warn", "link"):
        assert contrast(colours[text], colours["warn-paper"]) >= 4.5, text


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_lines_of_figures_have_a_contrast_of_three(scheme):
    colours = schemes()[scheme]
    series = [colours[f"series-{position}"] for position in range(len(drawing.PALETTE))]
    assert {position: value for position, value in enumerate(series) if contrast(value, colours["card"]) < 3} == {}
    assert contrast(colours["warn-line"], colours["paper"]) >= 3
    if scheme == "light":
        assert tuple(series) == drawing.PALETTE, "files and page show the same colours"


@pytest.mark.parametrize("vision", VISIONS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_series_differ_for_every_kind_of_eye(scheme, vision):
    colours = schemes()[scheme]
    seen = [lab(np.array(VISIONS[vision]) @ linear(colours[f"series-{n}"])) for n in range(len(drawing.PALETTE))]
    near = {(a, b): round(float(np.linalg.norm(seen[a] - seen[b]))) for a, b in combinations(range(len(seen)), 2)}
    assert {pair: distance for pair, distance in near.items() if distance < APART} == {}


def test_many_series_differ_too():
    """A large study has more methods than there are colours."""
    for style, there in ((drawing.dashes, 24), (drawing.hatch, 36)):
        styles = {(drawing.colour(n), str(style(n))) for n in range(there)}
        assert len(styles) == there, style


def test_series_differ_without_colours():
    styles = [(str(drawing.dashes(n)), drawing.marker(n), drawing.hatch(n)) for n in range(len(drawing.PALETTE))]
    assert len(set(styles)) == len(styles)
    assert len({marker for _, marker, _ in styles}) == len({hatch for _, _, hatch in styles}) == len(styles)
