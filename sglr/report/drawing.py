"""How figures look: one style, a palette that colour-blind readers can tell apart, SVG that is the same every time."""

import base64
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, GRID, PAPER = "#1b2026", "#d8dce1", "#ffffff"
# The first three are Okabe and Ito's (2008). Each has a contrast of 3 to its page, and all differ under simulated
# protanopia, deuteranopia and tritanopia: tests/report/test_report_colours.py.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#9e59fe", "#7c2e0d", "#4b02e9")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (5, 1.5, 1, 1.5)), (0, (1, 1.2)))
MARKERS = "osD^v<>"
HATCHES = ("", "///", "...", "xx", "\\\\\\", "++")
# More lines than these in one figure are no longer told apart: of seeds only the mean is drawn.
MANY_LINES = 40
# What a legend may take of a figure's height before the figure grows.
_LEGEND = 0.29
# Points, of a legend's letters.
_LETTERS, _SMALLEST = (10.0, 9.0), 6.0
# Drawn over filled shapes; not the paper's colour, which figures in the page have not.
HATCH = "#fdfdfe"
# Colours that the page replaces by its own, so that figures follow light and dark.
_THEMED = {
    INK: "var(--ink)", GRID: "var(--line)", PAPER: "none",
    **{colour: f"var(--series-{position})" for position, colour in enumerate(PALETTE)},
}  # fmt: skip
_STYLE = {
    "svg.hashsalt": "sglr", "svg.fonttype": "none", "pdf.fonttype": 42, "font.family": "sans-serif", "font.size": 11,
    "text.parse_math": False,  # a class may be called $
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK, "xtick.color": INK, "ytick.color": INK,
    "axes.facecolor": PAPER, "figure.facecolor": PAPER, "savefig.facecolor": PAPER,
    "axes.grid": True, "grid.color": GRID, "grid.linewidth": 0.8, "axes.axisbelow": True,
    "axes.spines.top": False, "axes.spines.right": False,
    "hatch.linewidth": 0.7, "hatch.color": HATCH,
    "legend.frameon": False, "lines.linewidth": 1.8,
}  # fmt: skip


@dataclass(frozen=True)
class Plot:
    """A figure as SVG text and PDF, with its title and a description for those who cannot see it; ``wide``: needs a
    row."""

    name: str
    title: str
    description: str
    svg: str
    pdf: bytes
    wide: bool = False

    def file(self) -> str:
        """The figure as a data URL, for a link that saves it even where the page is alone."""
        return f"data:image/svg+xml;base64,{base64.b64encode(self.svg.encode()).decode()}"

    def inline(self) -> str:
        """The same figure for inside a page: named for screen readers, in the page's colours, ids that no other has."""
        body = self.svg[self.svg.index("<svg") :]
        for colour, themed in _THEMED.items():
            body = body.replace(colour, themed)
        body = re.sub(r'\bid="', f'id="{self.name}-', body)
        body = re.sub(r'href="#', f'href="#{self.name}-', body)
        body = body.replace("url(#", f"url(#{self.name}-")
        label = escape(f"{self.title}. {self.description}")
        return body.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)


def colour(position: int) -> str:
    """The colour of the n-th thing shown; line styles tell apart those that share one."""
    return PALETTE[position % len(PALETTE)]


def dashes(position: int) -> Any:
    """The line style of the n-th thing shown."""
    return DASHES[(position + position // len(PALETTE)) % len(DASHES)]


def marker(position: int) -> str:
    """The shape of points of the n-th thing shown."""
    return MARKERS[position % len(MARKERS)]


def hatch(position: int) -> str:
    """The pattern on filled shapes of the n-th thing shown; it tells apart those that share a colour."""
    return HATCHES[(position + position // len(PALETTE)) % len(HATCHES)]


def seed_lines(values: np.ndarray, means: int) -> np.ndarray:
    """The curves (seeds, ...) to be drawn beside their mean: all, or none where the figure has too many means."""
    return values if len(values) > 1 and means * len(values) <= MANY_LINES else values[:0]


def legend(figure: "Figure", columns: int = 2) -> None:
    """A legend below the axes, in as many columns, and letters, as are no wider than the figure, which grows by what is
    too high."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    renderer = FigureCanvasAgg(figure).get_renderer()
    width, height = figure.get_size_inches()
    fewer = [(number, size) for number in range(columns, 0, -1) for size in _LETTERS]
    for number, size in (*fewer, (1, _SMALLEST)):
        made = figure.legend(loc="outside lower center", ncols=number, fontsize=size)
        extent = made.get_window_extent(renderer)
        if extent.width <= width * figure.dpi or size == _SMALLEST:
            break
        made.remove()
    figure.set_figheight(height + max(0.0, extent.height / figure.dpi - _LEGEND * height))


def _titled(figure: "Figure", title: str) -> None:
    """Over the whole figure: over its axes alone, wide labels beside them would leave too little room."""
    figure.suptitle(title, fontsize=11.5, fontweight="bold", x=0.01, ha="left")


@contextmanager
def canvas(title: str, height: float = 3.4) -> Iterator[tuple["Figure", "Axes"]]:
    """A figure with one axes in the report's style. Matplotlib settings made elsewhere are neither used nor changed."""
    from matplotlib import style
    from matplotlib.figure import Figure

    with style.context(["default", _STYLE]):
        figure = Figure(figsize=(4.4, height), layout="constrained")
        _titled(figure, title)
        yield figure, figure.add_subplot()


@contextmanager
def panels(title: str, rows: int, columns: int, width: float, height: float) -> Iterator[tuple["Figure", Any]]:
    """Axes (rows, columns) without ticks or grid, for images and matrices, in the report's style."""
    from matplotlib import style
    from matplotlib.figure import Figure

    with style.context(["default", _STYLE, {"axes.grid": False}]):
        figure = Figure(figsize=(width, height), layout="constrained")
        _titled(figure, title)
        axes = figure.subplots(rows, columns, squeeze=False)
        for one in axes.flat:
            one.set_xticks([])
            one.set_yticks([])
            for spine in one.spines.values():
                spine.set_visible(False)
        yield figure, axes


def plot(name: str, title: str, description: str, figure: "Figure", *, wide: bool = False) -> Plot:
    """The figure as it is now; call it inside ``canvas``."""
    return Plot(name, title, description, _svg(figure), _pdf(figure), wide)


def _pdf(figure: "Figure") -> bytes:
    """Without date or creator, its text as text."""
    stream = io.BytesIO()
    figure.savefig(stream, format="pdf", metadata={"CreationDate": None, "Creator": None, "Producer": None})
    return stream.getvalue()


def _svg(figure: "Figure") -> str:
    """Without date or creator."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    # The PDF keeps the places that were found: finding them again takes longer than drawing.
    figure.set_layout_engine("none")
    # Equal images would get equal ids.
    return re.sub(r'(<image[^>]*?) id="[^"]*"', r"\1", stream.getvalue())
