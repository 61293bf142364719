"""A report of many methods: figures keep room for what they show, and the answer is summed up."""

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sglr import config, report
from sglr.report.drawing import MANY_LINES, canvas, colour, legend, seed_lines
from sglr.report.markdown import summary
from sglr.report.results import collect
from sglr.report.sections import sections
from sglr.report.study import read
from sglr.report.tables import tables

Make = Callable[..., tuple[config.Config, Path]]
FALLING, KEPT, LOWER = (
    {"best": (140, 150), "last": last} for last in ((100, 110), (140, 150), (60, 70))
)  # of 200 examples, in both seeds
METHODS = ("at", "sglr", "a_method_with_a_long_name", "narrow_1", "narrow_2", "wide", "same")
CORRECT = dict(zip(METHODS, (FALLING, KEPT, KEPT, KEPT, KEPT, LOWER, FALLING), strict=True))


def declare(values: dict[str, Any]) -> None:
    values["methods"] |= dict.fromkeys(METHODS[2:], values["methods"]["sglr"])


@pytest.fixture
def many(make: Make) -> tuple[config.Config, Path]:
    return make(METHODS, correct=CORRECT, change=declare)


@pytest.mark.parametrize("entries", [2, 8, 16, 32])
@pytest.mark.parametrize("length", [4, 30])
def test_a_legend_takes_nothing_from_the_axes_and_is_not_cut_off(entries: int, length: int) -> None:
    with canvas("title") as (figure, axes):
        for position in range(entries):
            axes.plot([0, 1], [0, position], label="m" * length, color=colour(position))
        axes.set_xlabel("epoch")
        axes.set_ylabel("percent")
        legend(figure)
        figure.draw_without_rendering()
        drawn = figure.legends[0].get_window_extent()
        assert figure.bbox.x0 <= drawn.x0
        assert drawn.x1 <= figure.bbox.x1 + 1
        assert figure.bbox.y0 <= drawn.y0
        assert drawn.y1 <= axes.bbox.y0
        assert axes.bbox.height / figure.dpi >= 0.45 * 3.4
        if (entries, length) == (2, 4):
            assert figure.get_figheight() == 3.4


def test_lines_of_seeds_are_drawn_where_they_can_be_told_apart() -> None:
    values = np.zeros((5, 7))
    assert seed_lines(values, MANY_LINES // 5).shape == (5, 7)
    assert seed_lines(values, MANY_LINES // 5 + 1).shape == (0, 7)
    assert len(seed_lines(values[:1], 2)) == 0  # which is the mean


@pytest.mark.usefixtures("undrawn")
def test_the_answer_about_many_methods_is_summed_up(many: tuple[config.Config, Path], tmp_path: Path) -> None:
    results = collect(read(*many))
    headline = results["headline"]
    narrow = "‘sglr’, ‘a_method_with_a_long_name’, ‘narrow_1’, ‘narrow_2’"
    assert " ".join(headline["summary"].values()) == (
        f"The robust overfitting gap of ‘at’ under pgd20 is narrowed by 4 ({narrow}), not changed significantly by 1"
        " (‘same’), widened by 1 (‘wide’)."
        f" At the last epoch, beside ‘at’, better: 4 ({narrow}), not significantly different: 1 (‘same’), worse: 1"
        " (‘wide’)."
        f" Beside ‘at’ with early stopping, not significantly different: 4 ({narrow}), worse: 2 (‘wide’, ‘same’)."
    )
    shown = tables(results)
    (section,) = [one for one in sections(results, shown, defaultdict(list)) if one.id == "result"]
    assert section.lead == {headline["summary"]["sentence"]: headline["summary"]["accuracy"]}
    (folded,) = section.folded.values()
    assert "‘wide’ widens the robust overfitting gap of ‘at’ under pgd20: from 20.0 to 40.0 points" in str(folded)
    assert "Under autoattack (20 test examples), ‘wide’, in points" in str(folded)
    assert not any("Under autoattack" in text for text in section.text)
    assert "‘wide’ widens" not in summary(results, shown)
    report.write(*many, tmp_path / "report")
    assert "- ‘wide’ widens the robust overfitting gap" in (tmp_path / "report" / "results.md").read_text()


@pytest.mark.parametrize(
    ("best", "correct", "said"),
    [
        (
            True, CORRECT | {"at": KEPT},
            "‘at’ shows no significant robust overfitting gap under pgd20; it is not changed significantly by 4"
            " (‘sglr’, ‘a_method_with_a_long_name’, ‘narrow_1’, ‘narrow_2’), widened by 2 (‘wide’, ‘same’).",
        ),
        (False, CORRECT, "At the last epoch, beside ‘at’, better: 4 (‘sglr’,"),
    ],
)  # fmt: skip
def test_the_summary_where_there_is_no_gap_to_narrow(
    make: Make, best: bool, correct: dict[str, Any], said: str
) -> None:
    headline = collect(read(*make(METHODS, best=best, correct=correct, change=declare)))["headline"]
    assert headline["summary"]["sentence"].startswith(said)


@pytest.mark.parametrize("methods", [METHODS[:2], METHODS[:6]])
def test_of_few_methods_each_has_its_sentence(make: Make, methods: tuple[str, ...]) -> None:
    headline = collect(read(*make(methods, correct=CORRECT, change=declare)))["headline"]
    assert (headline["summary"], headline["each"]) == (None, [])
