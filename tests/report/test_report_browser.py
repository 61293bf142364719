"""The report in a real browser: at desktop and phone width, light and dark, by keyboard, for assistive technology."""

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from browser import Tab, needs_browser, tab

pytestmark = needs_browser

# What sticks out to the right of the page, outside what may be scrolled on its own.
OUT = """() => [...document.querySelectorAll("body *")].filter(e => !e.closest(".scroll, pre, svg") &&
  e.getBoundingClientRect().right > document.documentElement.clientWidth + 1).map(e => e.tagName + "#" + e.id)"""
SCROLLS = "() => document.documentElement.scrollWidth > document.documentElement.clientWidth"
EMPTY = (
    """() => [...document.querySelectorAll("figure svg")].filter(e => e.getBoundingClientRect().height < 50).length"""
)
HEADINGS = """() => [...document.querySelectorAll("h1, h2, h3, h4")].map(e => +e.tagName[1])"""
FOCUS = """() => { const e = document.activeElement, s = getComputedStyle(e), left = e.getBoundingClientRect().left;
  return [e.tagName, e.textContent.trim(), s.outlineStyle, parseFloat(s.outlineWidth), left] }"""
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


SLOW = [pytest.param(view, marks=pytest.mark.slow) for view in ((1300, "dark"), (390, "light"))]


@pytest.fixture(scope="module", params=[(1300, "light"), (390, "dark"), *SLOW], ids=str)
def opened(request: pytest.FixtureRequest, written: Path) -> Iterator[tuple[Tab, int]]:
    """The report at a width and in a colour scheme."""
    width, scheme = request.param
    with tab(width, color_scheme=scheme) as found:
        found.page.goto((written / "index.html").as_uri())
        yield found, width


def test_nothing_sticks_out_and_every_figure_is_drawn(opened: tuple[Tab, int], written: Path):
    (found, width), page = opened, opened[0].page
    assert page.evaluate("document.documentElement.clientWidth") == width
    assert page.evaluate(OUT) == []
    assert not page.evaluate(SCROLLS)
    assert page.evaluate(EMPTY) == 0
    assert page.locator("figure svg").count() == len(list(written.glob("figures/*.svg"))) > 5
    assert (found.left, found.said) == ([], [])
    assert page.evaluate("performance.getEntriesByType('resource').length") == 0


def test_facts_have_room_beside_their_names(opened: tuple[Tab, int]):
    widths = opened[0].page.evaluate("() => [...document.querySelectorAll('dd')].map(e => e.clientWidth)")
    assert len(widths) > 5
    assert min(widths) > 100


def test_on_paper_no_table_is_cut_off(written: Path):
    """A4 with Chromium's margins; paper does not scroll."""
    with tab(718) as found:
        found.page.goto((written / "index.html").as_uri())
        found.page.emulate_media(media="print")
        reach = found.page.evaluate(
            "() => [...document.querySelectorAll('section > .scroll table')].map(e => e.getBoundingClientRect().right)"
        )
        assert len(reach) > 3
        assert max(reach) <= 718
        assert found.page.evaluate("getComputedStyle(document.querySelector('.scroll')).overflow") == "visible"


@pytest.mark.slow
def test_axe_finds_nothing(opened: tuple[Tab, int]):
    """Deque's checker of the rules for accessibility; what it cannot decide is looked at in test_report_colours."""
    from axe_playwright_python.sync_playwright import Axe

    page = opened[0].page
    page.evaluate("document.querySelectorAll('details').forEach(e => e.open = true)")
    found = Axe().run(page, options={"runOnly": RULES}).response
    assert [(one["id"], one["nodes"][0]["html"][:200]) for one in found["violations"]] == []
    assert len(found["passes"]) > 20


def test_by_keyboard(written: Path):
    with tab(1300, reduced_motion="reduce") as found:
        page = found.page
        page.goto((written / "index.html").as_uri())
        page.keyboard.press("Tab")
        name, text, style, width, left = page.evaluate(FOCUS)
        assert (name, text, style) == ("A", "Skip to the results", "solid")
        assert width >= 2
        assert left >= 0, "the link comes into sight"
        page.keyboard.press("Enter")
        page.wait_for_url(re.compile("#main$"))  # told by an event, which may come late
        page.keyboard.press("Tab")
        assert page.evaluate("() => document.querySelector('main').contains(document.activeElement)")
        assert page.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == "auto"


def test_structure_for_screen_readers(opened: tuple[Tab, int]):
    page = opened[0].page
    levels = page.evaluate(HEADINGS)
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    for landmark in ("header", "nav", "main", "footer"):
        assert page.locator(landmark).count() == 1
    assert page.locator("section").count() == page.locator("section[aria-labelledby]").count() > 8


def test_a_table_and_a_figure_are_saved_from_the_page_alone(written: Path, tmp_path: Path):
    alone = tmp_path / "alone.html"
    alone.write_bytes((written / "index.html").read_bytes())
    with tab() as found:
        found.page.goto(alone.as_uri())
        for name in ("figures/gap.svg", "tables/comparison.csv", "tables/comparison.tex"):
            with found.page.expect_download() as download:
                found.page.locator(f'a[download="{Path(name).name}"]').click()
            assert Path(download.value.path()).read_bytes() == (written / name).read_bytes()


def test_the_checks_see_what_is_wrong(written: Path, tmp_path: Path):
    page = tmp_path / "bad.html"
    wrong = '<div id="wide" style="width: 3000px">x</div><script>console.error("broken"); missing()</script></body>'
    wrong = '<img src="http://example.org/x.png">' + wrong
    page.write_text((written / "index.html").read_text().replace("</body>", wrong))
    with tab() as found:
        found.page.goto(page.as_uri())
        assert "DIV#wide" in found.page.evaluate(OUT)
        assert found.page.evaluate(SCROLLS)
        assert found.left == ["http://example.org/x.png"]
        assert any("broken" in line for line in found.said)
        assert any("missing" in line for line in found.said)
