"""The files: same bytes for same inputs, nothing of what is no longer listed, pages and tables others can read."""

import base64
import csv
import hashlib
import json
import math
import re
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import matplotlib
import pytest

from sglr import config, report
from sglr.files import FileError
from sglr.report.curves import wide
from sglr.report.drawing import INK
from sglr.report.study import read
from sglr.weights import REGISTRY

Make = Callable[..., tuple[config.Config, Path]]


class Page(HTMLParser):
    """What a test asks of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_same_inputs_same_bytes_whatever_matplotlib_was_told(make: Make, written: Path, tmp_path: Path) -> None:
    with matplotlib.rc_context({"axes.linewidth": 9, "xtick.labelsize": 30, "svg.hashsalt": None}):
        before = dict(matplotlib.rcParams)
        report.write(*make(), tmp_path / "again")
        assert dict(matplotlib.rcParams) == before
    assert contents(tmp_path / "again") == contents(written)
    assert {"index.html", "results.md", "results.json", "curves/val-pgd.csv"} <= contents(written).keys()


@pytest.mark.usefixtures("without_pdf")
def test_removed_method_is_gone(make: Make, written: Path, tmp_path: Path) -> None:
    folder = tmp_path / "report"
    shutil.copytree(written, folder)
    assert (folder / "figures/curves-sglr.svg").is_file()
    assert (folder / "tables/differences.csv").is_file()
    report.write(*make(methods=("at",)), folder)
    left = contents(folder)
    assert (
        not {"figures/curves-sglr.svg", "figures/curves-sglr.pdf", "figures/differences.svg", "tables/differences.csv"}
        & left.keys()
    )
    named = re.compile(rb"\| sglr|>sglr</th>|sglr,|-sglr|\xe2\x80\x98sglr")
    assert [name for name, content in left.items() if named.search(content)] == []
    assert list(json.loads(left["results.json"])["provenance"]["params"]["methods"]) == ["at"]
    assert_whole(folder)


def test_bad_input_leaves_the_earlier_report(make: Make, tmp_path: Path) -> None:
    study, artifacts = make()
    (artifacts / "evaluate/sglr-0/metrics.json").unlink()
    (tmp_path / "index.html").write_text("the earlier one")
    with pytest.raises(FileError, match=r"evaluate/sglr-0/metrics\.json"):
        report.write(study, artifacts, tmp_path)
    assert (tmp_path / "index.html").read_text() == "the earlier one"


def test_page_loads_nothing(written: Path) -> None:
    assert_whole(written)


@pytest.mark.usefixtures("without_pdf")
def test_page_without_best_and_with_one_seed(make: Make, tmp_path: Path) -> None:
    report.write(*make(best=False, seeds=(0,)), tmp_path)
    assert_whole(tmp_path)
    markdown = (tmp_path / "results.md").read_text()
    assert [cell.strip() for cell in assert_tables_parse(markdown)[0][0]] == [
        "attack",
        "method",
        "last",
        "seeds",
        "examples",
    ]
    assert "±" not in markdown


def assert_whole(folder: Path) -> None:
    text = (folder / "index.html").read_text()
    page = Page(text)
    assert page.all("script") == page.all("iframe") == page.all("img") == []
    loaded = [a.get("href") or "" for a in page.all("link")]
    assert loaded == ["data:,"]
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    # What is linked lies beside the page or inside it; what can be saved from it is the file of that name.
    saved = set()
    for link in page.all("a"):
        target = link["href"] or ""
        if target.startswith("data:"):
            name = link["download"] or ""
            (path,) = folder.glob(f"*/{name}")
            assert base64.b64decode(target.partition(";base64,")[2]) == path.read_bytes()
            saved.add(path)
        else:
            assert f'id="{target[1:]}"' in text if target.startswith("#") else (folder / target).is_file()
    assert saved == {*folder.glob("figures/*.svg"), *folder.glob("tables/*.csv"), *folder.glob("tables/*.tex")}
    identifiers = [a["id"] for _, a in page.tags if "id" in a]
    assert len(identifiers) == len(set(identifiers))


def test_page_for_keyboards_screen_readers_and_dark_rooms(written: Path) -> None:
    text = (written / "index.html").read_text()
    page = Page(text)
    assert page.all("html")[0]["lang"] == "en"
    assert page.all("a")[0]["href"] == "#main"
    assert len(page.all("caption")) == len(page.all("table")) > 4
    assert all(cell["scope"] in ("col", "row", "rowgroup") for cell in page.all("th"))
    figures = page.all("svg")
    assert len(figures) == len(page.all("figure")) == len(list((written / "figures").glob("*.svg"))) > 5
    assert all(figure["role"] == "img" and figure["aria-label"] for figure in figures)
    assert "prefers-color-scheme: dark" in text
    assert text.count(INK) == 1  # the stylesheet's; in figures the page's own colour stands in its place


def test_learning_curves_say_where_things_happen(written: Path) -> None:
    figure = (written / "figures/curves-sglr.svg").read_text()
    for word in ("warm-up", "refinement from epoch", "best epoch of a seed", "last epoch of a seed"):
        assert word in figure
    assert "refinement from epoch" not in (written / "figures/curves-at.svg").read_text()
    labels = {a["aria-label"] for a in Page((written / "index.html").read_text()).all("svg")}
    # at: 62% in epoch 1, 66% in epoch 3, 4 points down each epoch after and 2 up.
    assert any("‘at’ goes from 62.0% to 60.0%, highest 66.0% at epoch 3." in (label or "") for label in labels)
    assert sum((label or "").endswith(" Best epochs: 3, 3.") for label in labels) == 2  # of every seed, for each method


@pytest.mark.slow
@pytest.mark.usefixtures("without_pdf")
def test_a_method_that_begins_without_the_warm_up_is_drawn_without_it(make: Make, tmp_path: Path) -> None:
    study, artifacts = make()
    for seed in (0, 1):
        path = artifacts / f"train/sglr-{seed}/history.csv"
        path.write_text("".join(line for line in path.open() if not line.startswith("warmup,")))
    report.write(study, artifacts, tmp_path / "report")
    figures = tmp_path / "report/figures"
    assert "warm-up" not in (figures / "curves-sglr.svg").read_text()
    assert "warm-up" in (figures / "curves-at.svg").read_text()
    assert "warm-up" in (figures / "validation-natural.svg").read_text()


def test_figures_are_well_formed_and_undated(written: Path) -> None:
    for path in (written / "figures").glob("*.svg"):
        assert ET.fromstring(path.read_text()).tag.endswith("svg")
        assert "date" not in path.read_text()
    pdfs = {path.stem: path.read_bytes() for path in (written / "figures").glob("*.pdf")}
    assert set(pdfs) == {path.stem for path in (written / "figures").glob("*.svg")}
    for content in pdfs.values():
        assert content.startswith(b"%PDF-")
        assert b"Date" not in content
        assert b"/Type3" not in content  # fonts that publishers refuse


@pytest.mark.usefixtures("undrawn")
def test_names_from_outside_are_escaped(make: Make, tmp_path: Path) -> None:
    study, artifacts = make()
    evil = "<script>alert('x')</script> | [a](b)"
    for path, key, value in (
        ("evaluate/sglr-0/metrics.json", "flags", [evil]),
        ("analyze/at-0/notes.json", evil, evil),
        ("analyze/at-1/metrics.json", "last", {evil: 1.0}),
        ("data/meta.json", "classes", [evil, "</style>", "c"]),
    ):
        content = json.loads((artifacts / path).read_text()) | {key: value}
        (artifacts / path).write_text(json.dumps(content))
    report.write(study, artifacts, tmp_path / "report")
    page = Page((tmp_path / "report/index.html").read_text())
    assert page.all("script") == []
    text = (tmp_path / "report/index.html").read_text()
    assert text.count("&lt;script&gt;alert(") >= 4
    assert 'class="flags"' in text
    markdown = (tmp_path / "report/results.md").read_text()
    assert "<script" not in markdown
    assert "[a](b)" not in markdown
    assert_tables_parse(markdown)


def test_no_flags_no_warning_but_a_word_on_it(written: Path) -> None:
    text = (written / "index.html").read_text()
    assert 'class="flags"' not in text
    assert "No check raised a flag" in text
    assert "Signs of masked gradients were not looked for" in text


def test_the_page_has_every_part_in_the_order_of_interest(written: Path) -> None:
    found = [a["id"] for a in Page((written / "index.html").read_text()).all("section")]
    order = "result setting flags comparison curves gap classes examples transfer labels memorisation"
    order += " calibration analysis cost"
    assert found == [*order.split(), "cautions", "data", "provenance"]


@pytest.mark.usefixtures("undrawn")
def test_provenance_has_the_weights(make: Make, tmp_path: Path) -> None:
    study, artifacts = make()
    (artifacts / "train/at-1/last").mkdir()
    (artifacts / "train/at-1/last/model.safetensors").write_bytes(b"weights")
    report.write(study, artifacts, tmp_path / "report")
    results = json.loads((tmp_path / "report/results.json").read_text())
    assert (
        results["provenance"]["data_sha256"] == hashlib.sha256((artifacts / "data/meta.json").read_bytes()).hexdigest()
    )
    assert results["provenance"]["weights"] == {"at-1/last": hashlib.md5(b"weights").hexdigest()}
    assert hashlib.md5(b"weights").hexdigest() in (tmp_path / "report/index.html").read_text()


def assert_tables_parse(markdown: str) -> list[list[list[str]]]:
    """Every table has a rule under its head and as many cells in each row as in its head."""
    blocks = [block.splitlines() for block in markdown.split("\n\n") if block.startswith("| ")]
    tables = [[re.split(r"(?<!\\)\|", line.strip())[1:-1] for line in block] for block in blocks]
    for head, rule, *body in tables:
        assert all(re.fullmatch(r" -+:? ", cell) for cell in rule)
        assert body
        assert {len(row) for row in (rule, *body)} == {len(head)}
    return tables


def test_markdown_tables_parse_and_hold_the_numbers(written: Path) -> None:
    markdown = (written / "results.md").read_text()
    comparison = [[cell.strip() for cell in row] for row in assert_tables_parse(markdown)[0]]
    assert comparison[0] == ["attack", "method", "best", "last", "gap", "95% of gap", "seeds", "examples"]
    at = next(row for row in comparison if row[:2] == ["pgd20", "at"])
    assert at[2:5] == ["72.5 ± 3.5", "52.5 ± 3.5", "20.0 ± 0.0"]
    assert at[6:] == ["2", "200"]
    assert markdown.index("narrows the robust overfitting gap") < markdown.index("| attack |")


def test_tables_for_programs(written: Path) -> None:
    table = rows(written / "tables/comparison.csv")
    at = next(row for row in table if (row["attack"], row["method"]) == ("pgd20", "at"))
    assert float(at["last_mean"]) == pytest.approx(0.525)
    seeds = rows(written / "tables/seeds.csv")
    first = next(row for row in seeds if (row["attack"], row["method"], row["seed"]) == ("pgd20", "at", "1"))
    assert (first["best"], first["last"], first["best_epoch"], first["last_low"]) == ("0.75", "0.55", "3", "0.4")


def test_curves_are_wide_means_over_seeds(make: Make, written: Path) -> None:
    study, artifacts = make()
    history = artifacts / "train/at-1/history.csv"
    history.write_text(history.read_text().replace("0.62", "0.52"))
    robust = wide(read(study, artifacts), "val/pgd")
    # Epoch 1: 0.62 with seed 0, 0.52 with seed 1; epoch 0, the warm-up, has no attack and no row.
    assert [row["epoch"] for row in robust] == [1, 2, 3, 4, 5, 6]
    assert robust[0] == {"epoch": 1, "at": pytest.approx(0.57), "sglr": pytest.approx(0.62)}
    assert wide(read(study, artifacts), "val/natural")[0]["at"] == 0.3
    # A method of which it was not measured has an empty column: without one DVC draws no plot of any.
    averaged = study.methods["sglr"].model_copy(update={"weights": REGISTRY.options("ema")})
    study = study.model_copy(update={"methods": study.methods | {"sglr": averaged}})
    unmeasured = {"epoch": 1, "at": pytest.approx(0.1), "sglr": pytest.approx(math.nan, nan_ok=True)}
    assert wide(read(study, artifacts), "train/pgd")[0] == unmeasured
    # DVC draws an empty cell as 0.
    for path in (written / "curves").glob("*.csv"):
        assert all("" not in row.values() for row in rows(path)), path
    assert rows(written / "curves" / "val-pgd.csv")[0]["at"] == "0.62"
