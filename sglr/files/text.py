"""JSON and CSV files."""

import contextlib
import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from sglr.files.atomic_writes import FileError, write_text

# What ends a line or reverses it, too. Not str.isprintable: people's names for things hold no-break spaces and joiners.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


def is_printable(text: str) -> bool:
    """Whether a text from elsewhere, of one line, does nothing to a terminal or in a file but to be shown."""
    return _UNPRINTABLE.search(text) is None


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as indented JSON with a final newline; NaN and infinity are refused."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """The value in a JSON file; FileError when it is missing or damaged."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise FileError(f"cannot read {path}: {error}") from None


def as_csv(rows: list[dict[str, Any]]) -> str:
    """Rows as CSV; columns in order of first appearance, absent and None values empty, floats exactly."""
    import csv
    import io

    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write_rows(path: str | Path, rows: list[dict[str, Any]]) -> None:
    """Write rows ``as_csv``."""
    write_text(path, as_csv(rows))


def read_rows(path: str | Path, text: Collection[str] = ()) -> list[dict[str, Any]]:
    """Rows of a CSV written by ``write_rows``: numbers as int or float, empty cells as None, empty rows left out.

    ``text``: columns that are left as they are, such as names, of which "1_0" and "nan" would pass for numbers.
    """
    import csv

    def value(column: str, cell: str) -> Any:
        if column in text:
            return cell
        if cell == "":
            return None
        for kind in (int, float):
            with contextlib.suppress(ValueError):
                return kind(cell)
        return cell

    try:
        with Path(path).open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise FileError(f"cannot read {path}: {error}") from None
    for number, row in enumerate(rows, 1):
        if None in row or None in row.values():
            raise FileError(f"cannot read {path}: row {number} has not one cell for each column")
    return [{key: value(key, cell) for key, cell in row.items()} for row in rows if any(row.values())]
