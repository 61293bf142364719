"""``.sglr/records/<item>.json``: when, where and how long an item ran, as which MLflow run. Outside outs and deps.

Those of a DVC experiment that ran in a copy of the project lie in a folder of its name.
"""

import datetime
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sglr import files
from sglr.tracking.journal import safe
from sglr.tracking.settings import LOG

RECORDS = Path(".sglr") / "records"


def write(
    root: Path, header: Mapping[str, Any], facts: Mapping[str, Any], *, started: int, ended: int, seconds: float
) -> None:
    """Write the record of a journal's item: ``facts``, host and times.

    ``started`` and ``ended`` in milliseconds since 1970; ``seconds``: time at work, without pauses between a kill and a
    resumption. A failure is a warning.
    """
    times = {"started": _iso(started), "ended": _iso(ended), "seconds": round(seconds, 3)}
    record = {**facts, "item": header["item"], **times, "host": socket.gethostname()}
    try:
        files.write_json(_path(root, header), record)
    except (files.FileError, TypeError, ValueError) as error:
        LOG.warning("no record of %s: %s", header["item"], error)


def complete(root: Path, header: Mapping[str, Any], journal_id: str, run_id: str | None) -> None:
    """Fill in the run id, which was not known while the server was away, if the record is of the same journal."""
    try:
        record = files.read_json(_path(root, header))
        if record.get("journal") == journal_id and record.get("run_id") != run_id:
            files.write_json(_path(root, header), {**record, "run_id": run_id})
    except files.FileError:
        return


def _path(root: Path, header: Mapping[str, Any]) -> Path:
    copy = header.get("copy")
    return (root / RECORDS / safe(copy) if copy else root / RECORDS) / f"{safe(header['item'])}.json"


def _iso(milliseconds: int) -> str:
    return datetime.datetime.fromtimestamp(milliseconds / 1000, datetime.UTC).isoformat(timespec="milliseconds")
