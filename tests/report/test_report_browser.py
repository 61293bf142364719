"""The report in a real browser: nothing sticks out at desktop or phone width, nothing fails, every figure is drawn."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
    "--virtual-time-budget=5000",
    "--enable-logging=stderr", "--proxy-server=127.0.0.1:9",
)  # fmt: skip
# What the page looks like is written into its title, which the dumped document has.
PROBE = """<script>
const inside = element => element.closest(".scroll, pre") !== null;
const out = [...document.querySelectorAll("body *")].filter(e => !inside(e) && !e.closest("svg")
  && e.getBoundingClientRect().right > document.documentElement.clientWidth + 1).map(e => e.tagName + "#" + e.id);
const empty = [...document.querySelectorAll("figure svg")].filter(e => e.getBoundingClientRect().height < 50).length;
document.title = JSON.stringify({width: document.documentElement.clientWidth, out: out.slice(0, 5), empty,
  figures: document.querySelectorAll("figure svg").length,
  scrolls: document.documentElement.scrollWidth > document.documentElement.clientWidth,
  loaded: performance.getEntriesByType("resource").map(e => e.name)});
</script></body>"""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")


def look(page: Path, width: int, folder: Path) -> tuple[dict, str]:
    """What the probe found at a width, and what the browser said."""
    probed = folder / "probed.html"
    probed.write_text(page.read_text().replace("</body>", PROBE))
    command = [
        str(CHROMIUM), *FLAGS, f"--user-data-dir={folder / 'profile'}", f"--window-size={width},1200", "--dump-dom",
        probed.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)
    assert title, done.stderr
    return json.loads(title[1].replace("&amp;", "&").replace("&gt;", ">").replace("&lt;", "<")), done.stderr


@pytest.mark.parametrize("width", [1300, 390])
def test_nothing_sticks_out_and_every_figure_is_drawn(written: Path, tmp_path: Path, width: int):
    found, said = look(written / "index.html", width, tmp_path)
    assert found["width"] <= max(width, 500)
    assert (found["out"], found["scrolls"]) == ([], False)
    assert found["empty"] == 0
    assert found["figures"] == len(list(written.glob("figures/*.svg")))
    assert found["loaded"] == []
    assert "CONSOLE" not in said, said


def test_the_probe_sees_what_is_wrong(written: Path, tmp_path: Path):
    page = tmp_path / "bad.html"
    wrong = '<div id="wide" style="width: 3000px">x</div><script>console.error("broken"); missing()</script></body>'
    page.write_text((written / "index.html").read_text().replace("</body>", wrong))
    found, said = look(page, 1300, tmp_path)
    assert "DIV#wide" in found["out"]
    assert found["scrolls"]
    assert said.count("CONSOLE") >= 2
