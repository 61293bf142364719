"""The built documentation: strictly built, whole, with links that lead somewhere, readable without a network."""

import importlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pages
import pytest
import yaml
from bs4 import BeautifulSoup

from sglr.cli import main
from sglr.config.fields import ROOMS
from sglr.config.sections import Method

sys.path.insert(0, str(pages.ROOT / "docs"))

import figures
import params_reference

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# What DESIGN calls names that other code may rely on.
NAMES = [
    "sglr.models.load_model", "sglr.models.build", "sglr.config.load", "sglr.threat.Linf", "sglr.threat.L2",
    "sglr.attacks.pgd", "sglr.labels.SelfGuidedRefinement", "sglr.labels.SelfGuidedRefinement.update",
    "sglr.labels.SelfGuidedRefinement.state_dict", "sglr.labels.SelfGuidedRefinement.load_state_dict",
    "sglr.on_arrays.training.train", "sglr.on_arrays.robustness.robustness", "sglr.exchange.load_foreign",
    "sglr.training.fit",
]  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    makefile = (pages.ROOT / "Makefile").read_text()
    (options,) = re.findall(r"python\"? -m sphinx (.*) docs build/docs", makefile)
    command = [sys.executable, "-m", "sphinx", *options.split(), "-d", str(folder / "trees"), "docs", str(folder)]
    done = subprocess.run(command, cwd=pages.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--fail-on-warning" in options
    return folder


@pytest.fixture(scope="module")
def soups(site: Path) -> dict[Path, BeautifulSoup]:
    return {path: BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser") for path in site.rglob("*.html")}


def test_links_lead_to_a_page_and_a_place_on_it(soups: dict[Path, BeautifulSoup]):
    places = {path: {tag["id"] for tag in soup.find_all(id=True)} for path, soup in soups.items()}
    wrong, followed = [], 0
    for path, soup in soups.items():
        for link in soup.find_all("a", href=True):
            name, _, anchor = link["href"].partition("#")
            if name.startswith(("http:", "https:")):
                continue
            target = (path.parent / unquote(name)).resolve() if name else path
            there = target.is_file() if target not in places or not anchor else anchor in places[target]
            wrong += [] if there else [f"{path.name}: {link['href']}"]
            followed += 1
    assert wrong == []
    assert followed > 1000


def test_nothing_is_loaded_from_elsewhere(site: Path, soups: dict[Path, BeautifulSoup]):
    for path, soup in soups.items():
        for tag in soup.find_all(["script", "img", "link", "iframe", "source"]):
            address = tag.get("src") or tag.get("href") or ""
            assert not address.startswith(("http:", "https:", "//")), f"{path.name}: {address}"
    for style in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*['\"]?(https?:)?//", style.read_text(encoding="utf-8")), style


def test_what_scrolls_is_reached_by_keyboard(soups: dict[Path, BeautifulSoup]):
    found = [
        tag for soup in soups.values() for tag in soup.select("article pre, article .table-wrapper, article .formula")
    ]
    assert {tag.name for tag in found} == {"pre", "div"}
    assert [str(tag)[:80] for tag in found if tag.get("tabindex") != "0"] == []
    headings = [tag for soup in soups.values() for tag in soup.select("[role=heading]")]
    assert headings
    assert all(tag.get("aria-level") for tag in headings)


def test_every_public_name_has_its_place(soups: dict[Path, BeautifulSoup]):
    places = {tag["id"] for soup in soups.values() for tag in soup.find_all(id=True)}
    assert [name for name in NAMES if name not in places] == []


def test_every_command_and_option_is_there(site: Path):
    text = (site / "reference/command-line.html").read_text(encoding="utf-8")
    places = set(re.findall(r'id="(cmdoption-[^"]+)"', text))
    for name, command in main.commands.items():
        for option in command.params:
            assert any(place.startswith(f"cmdoption-sglr-{name}-") for place in places), (name, option.name)
    assert "cmdoption-sglr-predict-attack" in places


def keys(values: dict, where: str = "") -> list[str]:
    """Dotted keys of sections, without what is inside methods, components and mappings of a user's own names."""
    found = []
    for key, value in values.items():
        path = f"{where}{key}"
        if path in ("methods", "model", "data.source", "train.schedule", "evaluate.attacks"):
            continue
        found += keys(value, f"{path}.") if isinstance(value, dict) else [path]
    return found


def test_every_key_and_option_is_explained():
    text = params_reference.markdown()
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("| `")]
    explained = {row[0].strip(" `"): [cell.strip() for cell in row[1:]] for row in rows}
    shipped = yaml.safe_load((pages.ROOT / "params.yaml").read_text())
    assert [key for key in keys(shipped) if key not in explained] == []
    assert [key for key, (_, _, meaning) in explained.items() if not meaning] == []
    assert explained["train.optimizer.momentum"] == ["number ≥ 0, < 1", "`0.9`", "0: none"]
    assert explained["data.train_size"][0] == "whole number ≥ 1 or `null`"
    assert explained["depth"] == ["whole number ≥ 10, ≤ 1000", "`34`", "6 n + 4: 10, 16, 22, 28, 34, ..."]


def test_no_explanation_is_of_something_that_is_gone():
    for key in params_reference.MEANINGS:
        kind, name, option = [*key.split("."), ""][:3]
        if kind == "methods":
            assert option in Method.model_fields, key
            continue
        if kind == "data":
            assert f"| `{key}` |" in params_reference.markdown()
            continue
        registry = importlib.import_module(ROOMS[kind]).REGISTRY
        names = registry.names() if name == "*" else [name]
        assert any(option in registry.type_of(one).model_fields for one in names), key


def test_the_image_of_the_pipeline_is_that_of_dvc_yaml(tmp_path: Path):
    assert set(figures.graph().edges) == {
        ("check", "prepare"), ("prepare", "warmup"), ("warmup", "train"), ("train", "evaluate"), ("train", "analyze"),
        ("evaluate", "audit"), ("audit", "report"), ("analyze", "report"),
    }  # fmt: skip
    figures.draw(tmp_path / "pipeline.svg")
    drawn, kept = ((folder / "pipeline.svg").read_text() for folder in (tmp_path, pages.ROOT / "docs/images"))
    texts = [re.findall(r"<text [^>]*>([^<]+)</text>", image) for image in (drawn, kept)]
    assert texts[0] == texts[1]
    assert set(figures.stages()) <= set(texts[0])


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
@pytest.mark.parametrize("width", [1300, 500])
@pytest.mark.parametrize("page", ["index", "tutorial", "reference/params", "reference/python/attacks", "methods"])
def test_nothing_sticks_out(site: Path, tmp_path: Path, page: str, width: int):
    """500 is the narrowest window of a Chromium without a screen; both widths are on either side of the menu's fold."""
    probe = """<script>addEventListener("load", () => { document.title = JSON.stringify({
        scrolls: document.documentElement.scrollWidth > document.documentElement.clientWidth,
        styles: document.styleSheets.length, broken: [...document.images].filter(i => !i.naturalWidth).map(i => i.src),
        loaded: performance.getEntriesByType("resource").map(e => e.name)}); });</script></body>"""
    copy = shutil.copytree(site, tmp_path / "site", ignore=shutil.ignore_patterns("trees"))
    (copy / f"{page}.html").write_text((copy / f"{page}.html").read_text().replace("</body>", probe))
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--virtual-time-budget=5000",
        "--disable-background-networking", "--enable-logging=stderr", "--proxy-server=127.0.0.1:9",
        f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},1000", "--dump-dom",
        (copy / f"{page}.html").as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)
    assert title, done.stderr
    found = json.loads(title[1].replace("&amp;", "&"))
    assert found["scrolls"] is False
    assert all(name.startswith("file:") for name in found["loaded"])
    assert found["broken"] == []
    assert found["styles"] > 3
    assert "CONSOLE" not in done.stderr, done.stderr
