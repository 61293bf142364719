"""Evaluations and analyses are children of the training run whose weights they used; found or made here."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sglr import files
from sglr.tracking import journal, records
from sglr.tracking.delivery import Delivery, settle, survey
from sglr.tracking.server import Server

_RESTORE_WAIT = 60.0


@dataclass(frozen=True)
class ParentQuery:
    """The training run a child belongs to, and what is needed to recreate it.

    ``params_hash`` and ``weights_md5`` are the training's own. ``history``: rows of its history.csv; ``params``: its
    flat params.
    """

    method: str
    seed: str
    params_hash: str
    weights_md5: str
    history: list[dict[str, Any]] = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)

    @property
    def tags(self) -> dict[str, str]:
        """The tags the run must have."""
        names = ("method", "seed", "params_hash", "weights_md5")
        return {"stage": "train", **{name: str(getattr(self, name)) for name in names}}


def delivery(root: Path, folder: Path, server: Server) -> Delivery:
    """The delivery of the journal in ``folder``, finding or making its parent on the way."""

    def parent_of(header: dict[str, Any]) -> str:
        return find_or_restore(root, server, header["experiment"], ParentQuery(**header["parent"]))

    return Delivery(folder, server, parent_of)


def send_whole(root: Path, folder: Path, server: Server) -> str:
    """Send everything in a journal, complete its record, and remove it if the run has finished.

    Returns why some files could not be stored, or "". Only for the holder of its ``sender.lock``.
    """
    sending = delivery(root, folder, server)
    reason = sending.drain()
    records.complete(root, sending.header, sending.header["journal"], sending.progress.run_id)
    settle(folder)
    return reason


def find_or_restore(root: Path, server: Server, experiment: str, query: ParentQuery) -> str:
    """Id of the newest FINISHED training run with the query's tags.

    The server may lack it because it was down while the run was made: then the journal of that run is sent now. If
    there is none either, the training came from DVC's cache: a run tagged ``restored`` is made from its history.
    """
    experiment_id = server.experiment(experiment)
    identity = hashlib.sha256(json.dumps(query.tags).encode()).hexdigest()[:12]
    found = server.newest(experiment_id, query.tags, "FINISHED")
    if found is not None:
        return found
    # Two children that restore at once would restore twice.
    guard = root / journal.JOURNALS / f"parent-{identity}.lock"
    with files.lock(guard, timeout=_RESTORE_WAIT, holder="another evaluation or analysis"):
        _send_waiting(root, server, experiment, query)
        found = server.newest(experiment_id, query.tags, "FINISHED")
        if found is None:
            _write_journal(root, experiment, query, identity)
            _send_waiting(root, server, experiment, query)
            found = server.newest(experiment_id, query.tags, "FINISHED")
    if found is None:
        raise RuntimeError(f"the training run of {query.method}-{query.seed} could not be restored")
    return found


def _send_waiting(root: Path, server: Server, experiment: str, query: ParentQuery) -> None:
    """Send the journals of such training runs that wait here, after any other sender of them."""
    same = {key: value for key, value in query.tags.items() if key != "weights_md5"}
    for folder in journal.folders(root):
        seen = survey(folder)
        if seen is None or seen.status != "FINISHED" or seen.header["experiment"] != experiment:
            continue
        if not same.items() <= seen.header["tags"].items():
            continue
        with files.lock(folder / journal.SENDER, timeout=_RESTORE_WAIT, holder="another sender"):
            send_whole(root, folder, server)


def _write_journal(root: Path, experiment: str, query: ParentQuery, identity: str) -> None:
    header = {
        "experiment": experiment,
        "stage": "train",
        "item": f"train@{query.method}-{query.seed}",
        "tags": {**query.tags, "restored": "true"},
        "parent": None,
    }
    with journal.claim(root, header, f"restored/{identity}") as restored:
        restored.params(query.params)
        for row in query.history:
            measured = {key: value for key, value in row.items() if key not in ("phase", "epoch")}
            restored.metrics(measured, step=int(row["epoch"]))
        restored.append("end", status="FINISHED")
