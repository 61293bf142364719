"""``.sglr/records/<item>.json``: when, where and how long an item ran, as which MLflow run. Outside outs and deps."""

import datetime
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sglr import files
from sglr.tracking.journal import safe
from sglr.tracking.settings import LOG

RECORDS = Path(".sglr") / "records"


def write(root: Path, item: str, facts: Mapping[str, Any], *, started: int, ended: int, seconds: float) -> None:
    """Write the record of an item: ``facts``, host and times.

    ``started`` and ``ended`` in milliseconds since 1970; ``seconds``: time at work, without pauses between a kill and a
    resumption. A failure is a warning.
    """
    times = {"started": _iso(started), "ended": _iso(ended), "seconds": round(seconds, 3)}
    record = {**facts, "item": item, **times, "host": socket.gethostname()}
    try:
        files.write_json(_path(root, item), record)
    except (files.FileError, TypeError, ValueError) as error:
        LOG.warning("no record of %s: %s", item, error)


def complete(root: Path, item: str, journal_id: str, run_id: str | None) -> None:
    """Fill in the run id, which was not known while the server was away, if the record is of the same journal."""
    try:
        record = files.read_json(_path(root, item))
        if record.get("journal") == journal_id and record.get("run_id") != run_id:
            files.write_json(_path(root, item), {**record, "run_id": run_id})
    except files.FileError:
        return


def _path(root: Path, item: str) -> Path:
    return root / RECORDS / f"{safe(item)}.json"


def _iso(milliseconds: int) -> str:
    return datetime.datetime.fromtimestamp(milliseconds / 1000, datetime.UTC).isoformat(timespec="milliseconds")
