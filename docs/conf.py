"""Sphinx settings of the documentation; `make docs` builds it into build/docs, with warnings as errors."""

import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

import params_reference  # noqa: E402 (lies beside this file)
from docutils import nodes  # noqa: E402
from docutils.utils.math import MathError  # noqa: E402
from docutils.utils.math.latex2mathml import tex2mathml  # noqa: E402
from sphinx.util import logging  # noqa: E402

import sglr  # noqa: E402

project = "SGLR"
author = "The SGLR developers"
copyright = author
version = release = sglr.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click", "sphinx_copybutton"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
# Pages are read on GitHub too, where headings have anchors of this form.
myst_heading_anchors = 4
# Formulas have the form that GitHub shows, too: blocks are fenced, elsewhere it takes backslashes for escapes.
myst_enable_extensions = ["attrs_inline", "colon_fence", "dollarmath"]
myst_fence_as_directive = ["math"]
default_role = "literal"
# x' is an adversarial image, --version an option.
smartquotes = False

autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
add_module_names = False

html_math_renderer = "mathml"
html_theme = "furo"
html_title = f"SGLR {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = True

# Pages of the site that are another file of the repository; the page itself only says so.
ELSEWHERE = {
    "project/benchmarks": "benchmarks/RESULTS.md",
    "project/changelog": "CHANGELOG.md",
    "project/contributing": "CONTRIBUTING.md",
}
PARAMS = "<!-- every key, made from the types and the comments of params.yaml -->"


def read_source(app: Any, docname: str, source: list[str]) -> None:
    """Fill pages that are made of something else, and keep links that leave docs/ inside the site."""
    text, folder = source[0], (ROOT / "docs" / docname).parent
    if docname in ELSEWHERE:
        text, folder = (ROOT / ELSEWHERE[docname]).read_text(encoding="utf-8"), (ROOT / ELSEWHERE[docname]).parent
    if PARAMS in text:
        text = text.replace(PARAMS, params_reference.markdown())
    source[0] = re.sub(r"(?<!!)\[([^\]]*)\]\(([^)\s]+)\)", lambda link: _within_site(link, folder), text)


def _within_site(link: re.Match[str], folder: Path) -> str:
    """The link as it is, led to the page that stands for a file outside docs/, or its text where there is none."""
    words, target = link.groups()
    if target.startswith(("http:", "https:", "mailto:", "#")):
        return link.group()
    name, _, anchor = target.partition("#")
    path = (folder / name).resolve().relative_to(ROOT).as_posix()
    pages = {file: f"docs/{page}.md" for page, file in ELSEWHERE.items()} | {"README.md": "docs/index.md"}
    path = pages.get(path, path)
    if not path.startswith("docs/"):
        return words
    return f"[{words}](/{path.removeprefix('docs/')}{'#' + anchor if anchor else ''})"


def escape_bars(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Docstrings write |x| for an absolute value and H(x | y); reStructuredText would look for a substitution."""
    lines[:] = [line if "``" in line else line.replace("|", r"\|") for line in lines]


def show_examples(app: Any, context: Any, lines: list[str]) -> None:
    """The examples below a command's help as a block of code."""
    if any("Examples:" in line for line in lines):
        commands = [line.strip("| ") for line in lines if line.strip("| ") and "Examples:" not in line]
        lines[:] = [".. rubric:: Examples", "", ".. code-block:: sh", ""]
        lines += [*(f"   {command}" for command in commands), ""]


def show_formula(page: Any, node: Any) -> None:
    """A formula as MathML, which browsers draw without a script, and so without a network."""
    block = isinstance(node, nodes.math_block)
    try:
        # Docutils leaves no space around the name of a function.
        spaced = re.sub(r"(?<=[\w)'] )\\log", r"\\,\\log", node.astext()).replace(r"\log ", r"\log\, ")
        formula = tex2mathml(spaced, as_block=block)
    except MathError as error:
        logging.getLogger(__name__).warning("formula %r: %s", node.astext(), error, location=node)
        raise nodes.SkipNode from None
    page.body.append(f'<div class="formula">{formula}</div>' if block else formula)
    raise nodes.SkipNode


def complete_page(app: Any, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """What scrolls is reached by keyboard in every browser, and the menu's headings have the level they lack."""
    for part, tag, more in (
        ("body", '<div class="table-wrapper', 'tabindex="0"'),
        ("body", '<div class="formula', 'tabindex="0"'),
        ("body", "<pre", 'tabindex="0"'),
        ("furo_navigation_tree", '<p class="caption" role="heading', 'aria-level="2"'),
    ):
        name, *rest = tag.split(" ", 1)
        context[part] = context.get(part, "").replace(tag, " ".join([name, more, *rest]))


def setup(app: Any) -> None:
    app.add_html_math_renderer("mathml", (show_formula, None), (show_formula, None))
    app.connect("sphinx-click-process-epilog", show_examples)
    app.connect("autodoc-process-docstring", escape_bars)
    app.connect("source-read", read_source)
    app.connect("html-page-context", complete_page, priority=900)  # after the theme
