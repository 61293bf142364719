"""What the documentation names exists: tests, files, commands."""

import json
import re
from pathlib import Path

import pytest

from sglr.cli import main
from sglr.doctor.examining import VARIABLES

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_every_fault_has_its_test():
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    rows = [line for line in (ROOT / "docs/faults.md").read_text().splitlines() if line.startswith("| ")]
    named = [re.findall(r"`(test_\w+)`", row) for row in rows if not row.startswith(("| fault", "| **"))]
    assert len(named) > 25
    assert all(named)
    assert [name for names in named for name in names if f"def {name}(" not in tests] == []


def test_a_norm_of_the_default_study_is_the_committed_one():
    found = json.loads((ROOT / "artifacts/analyze/sglr-0/metrics.json").read_text())["best"]
    page = (ROOT / "docs/analysis/gradient-norms.md").read_text()
    assert f"and {found['full_gradient/adversarial/noisy']:.1f} with the refined ones" in page.replace("\n", " ")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if not target.startswith(("http", "#", "mailto:")):
            assert (page.parent / target.split("#")[0]).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_formulas_in_a_line_are_shown_by_github(page: Path):
    r"""It takes a backslash before a sign, as in \, or \\|, for an escape of Markdown; not in blocks."""
    text = re.sub(r"(?s)```.*?```|`[^`\n]*`", "", page.read_text())
    assert "$$" not in text
    assert [line for line in text.splitlines() if line.count("$") % 2] == []
    assert [formula for formula in re.findall(r"\$([^$\n]+)\$", text) if re.search(r"\\[^A-Za-z]", formula)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_exist(page: Path):
    named = set(re.findall(r"`sglr ([a-z]+)", page.read_text())) | set(
        re.findall(r"^sglr ([a-z]+)", page.read_text(), re.MULTILINE)
    )
    assert named <= set(main.commands)


def test_git_takes_nothing_that_documented_commands_write():
    text = "\n".join(page.read_text() for page in PAGES)
    folders = set(re.findall(r"^(?:\$ )?sglr .*--output ([\w-]+)", text, re.MULTILINE))
    folders |= {str(option.default) for option in main.commands["predict"].params if option.name == "output"}
    assert folders == {"export", "adversarial"}
    assert {f"/{folder}/" for folder in folders} <= set((ROOT / ".gitignore").read_text().splitlines())


def test_every_variable_is_described():
    code = "\n".join(path.read_text() for room in ("sglr", "stages") for path in (ROOT / room).rglob("*.py"))
    page = (ROOT / "docs/reference/environment.md").read_text()
    described = set(re.findall(r"^\| `(SGLR_\w+)`", page, re.MULTILINE))
    assert described == set(re.findall(r"\bSGLR_[A-Z_]+", code))
    assert described == set(VARIABLES)


def test_every_command_is_described():
    described = set(re.findall(r"^\| `sglr ([a-z]+)", (ROOT / "docs/how-to/command-line.md").read_text(), re.MULTILINE))
    assert described == set(main.commands)
