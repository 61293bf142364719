"""One table of the report, and the forms in which it is saved."""

import base64
import re
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from sglr import files

Row = dict[str, Any]


@dataclass(frozen=True)
class Table:
    """One table. The first ``labels`` columns name a row, the rest are numbers.

    ``grouped``: rows that share their first cell stand together and show it once.
    """

    name: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    records: list[Row]
    labels: int = 1
    grouped: bool = False

    def latex(self) -> str:
        """The rows as a LaTeX table (booktabs): text is escaped, the caption is the table's."""
        import pandas

        frame = pandas.DataFrame(list(self.rows), columns=list(self.columns))
        shown = frame.style.hide(axis="index").format(escape="latex").format_index(escape="latex", axis="columns")
        text: str = shown.to_latex(
            hrules=True,
            column_format="l" * self.labels + "r" * (len(self.columns) - self.labels),
            caption=_escaped(self.caption),
            label=f"tab:{self.name}",
            position="htbp",
            position_float="centering",
        )
        for character, command in _LATEX.items():
            text = text.replace(character, command)
        return text

    def csv(self) -> str:
        """The records for programs, as any table that is written here."""
        return files.as_csv(self.records)

    def file(self, kind: str) -> str:
        """The table as a data URL of a csv or tex file, for a link that saves it even where the page is alone."""
        text = self.latex() if kind == "tex" else self.csv()
        return f"data:text/{'x-tex' if kind == 'tex' else 'csv'};base64,{base64.b64encode(text.encode()).decode()}"

    def groups(self) -> list[list[tuple[str, ...]]]:
        """The rows, those that share their first cell together; all in one group when the table is not grouped."""
        if not self.grouped:
            return [list(self.rows)]
        return [list(rows) for _, rows in groupby(self.rows, key=lambda row: row[0])]


# Characters that LaTeX's usual fonts and packages lack.
_LATEX = {"−": "$-$", "±": r"$\pm$", "–": "--", "‘": "`", "’": "'", "λ": r"$\lambda$", "×": r"$\times$"}


def _escaped(text: str) -> str:
    return re.sub(r"([&%$#_{}])", r"\\\1", text)


def deviations(results: Row) -> str:
    """What stands after the mean in a caption."""
    return ", mean ± standard deviation over seeds" if len(results["experiment"]["seeds"]) > 1 else ""


def flat(row: Row) -> Row:
    """Nested values under joined names: {'best': {'mean': 1}} -> {'best_mean': 1}."""
    flat: Row = {}
    for key, value in row.items():
        if isinstance(value, dict):
            flat.update({f"{key}_{inner}": number for inner, number in value.items()})
        else:
            flat[key] = value
    return flat
