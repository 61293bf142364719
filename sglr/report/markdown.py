"""results.md: the headline, the tables and the cautions as GitHub-flavoured Markdown."""

import html
from typing import Any

from sglr.report.flags import raised
from sglr.report.table import Table
from sglr.report.wording import plain

SHOWN = ("comparison", "differences", "seeds", "labels", "memorisation", "analysis")


def markdown(results: dict[str, Any], tables: dict[str, Table]) -> str:
    """The complete file; anything that came from outside is escaped."""
    parts = _parts(results, tables, SHOWN)
    parts += ["## Setting", bullets([f"{heading}: {text}" for heading, text in results["outline"].items()])]
    if results["headline"]["each"]:
        parts += ["## Every method in words", bullets(results["headline"]["each"])]
    if results["notes"]:
        parts += ["## Notes on the analyses", bullets([f"{key}: {note}" for key, note in results["notes"].items()])]
    parts += ["## Cautions", bullets(results["cautions"])]
    parts += ["## Data", bullets([f"{key}: {plain(value)}" for key, value in results["data"].items()])]
    provenance = results["provenance"]
    made = [f"{name} {version}" for name, version in provenance["versions"].items()]
    parts += ["## Versions", bullets([*made, f"data {provenance['data_sha256']}"])]
    return "\n\n".join(parts) + "\n"


def summary(results: dict[str, Any], tables: dict[str, Table]) -> str:
    """Its beginning: the headline and the tables of the comparison."""
    return "\n\n".join(_parts(results, tables, SHOWN[:2])) + "\n"


def _parts(results: dict[str, Any], tables: dict[str, Table], shown: tuple[str, ...]) -> list[str]:
    parts = [f"# {escape(results['experiment']['name'])}"]
    headline = results["headline"]
    for verdict in [headline["summary"]] if headline["summary"] else headline["verdicts"]:
        parts += [f"**{escape(verdict['sentence'])}** {escape(verdict['accuracy'])}".strip()]
    parts += [escape(" ".join(headline["details"]))]
    if results["flags"]:
        parts += ["## Sanity flags", bullets(raised(results["flags"]))]
    return parts + [table(tables[name]) for name in shown if name in tables]


def table(shown: Table) -> str:
    """A caption in bold and the table, numbers aligned to the right."""
    rules = ["---" if position < shown.labels else "---:" for position in range(len(shown.columns))]
    lines = [shown.columns, rules, *shown.rows]
    return f"**{escape(shown.caption)}**\n\n" + "\n".join(
        "| " + " | ".join(cell if line is rules else escape(cell) for cell in line) + " |" for line in lines
    )


def bullets(sentences: list[str]) -> str:
    return "\n".join(f"- {escape(sentence)}" for sentence in sentences)


def escape(text: str) -> str:
    """On one line, without HTML, table separators, emphasis or links."""
    text = html.escape(" ".join(text.split()), quote=False)
    for mark in "\\`*|":
        text = text.replace(mark, f"\\{mark}")
    return text.replace("](", "]\\(")
