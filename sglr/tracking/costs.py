"""What runs cost on this machine, from ``.sglr/records``: time and memory belong to no output, so no page has them."""

import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

from sglr import files
from sglr.config.wording import counted
from sglr.tracking.records import RECORDS

__all__ = ["RECORDS", "peak_memory", "read", "table"]
_MIB = 2**20
_COLUMNS = ("item", "seconds", "peak_mib", "peak_gpu_mib", "device", "threads", "host", "ended", "status")
_STAGES = ("prepare", "warmup", "train", "evaluate", "audit", "analyze", "report")


def peak_memory() -> dict[str, float]:
    """The most memory this process has had at once, in MiB: ``peak_mib``, and ``peak_gpu_mib`` where it used a GPU:
    what torch held of its memory, which is more than its tensors took."""
    found: dict[str, float] = {}
    if sys.platform != "win32":
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        found["peak_mib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / _MIB, 1)
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        devices = range(torch.cuda.device_count())
        found["peak_gpu_mib"] = round(sum(torch.cuda.max_memory_reserved(device) for device in devices) / _MIB, 1)
    return found


def read(root: Path, items: Collection[str] | None = None) -> list[dict[str, Any]]:
    """The cost of every item that was last run here, in the order of the pipeline; None where a record has no value.

    ``items``: those that count; records of other studies lie in the same folder. None: all.
    """
    records = []
    for path in sorted((root / RECORDS).glob("*.json")):
        record = files.read_json(path)
        if not isinstance(record, dict):
            raise files.FileError(f"cannot read {path}: it is not the record of a run; remove it.")
        if items is not None and record.get("item") not in items:
            continue
        records.append({name: record.get(name) for name in _COLUMNS})
    return sorted(records, key=lambda record: (_order(str(record["item"])), str(record["item"])))


def _order(item: str) -> int:
    stage = item.partition("@")[0]
    return _STAGES.index(stage) if stage in _STAGES else len(_STAGES)


def table(records: list[dict[str, Any]]) -> str:
    """The costs as text: a line per item, then the sum of each stage."""
    lines = [("item", "time", "memory", "GPU memory", "where")]
    lines += [
        (str(one["item"]), _time(one["seconds"]), _memory(one["peak_mib"]), _memory(one["peak_gpu_mib"]), _where(one))
        for one in records
    ]
    total = 0.0
    for stage in dict.fromkeys(str(one["item"]).partition("@")[0] for one in records):
        items = [one for one in records if str(one["item"]).partition("@")[0] == stage]
        spent = sum(one["seconds"] or 0.0 for one in items)
        total += spent
        if len(items) > 1:
            lines.append((f"{stage}, {len(items)} items", _time(spent), "", "", ""))
    lines.append(("all", _time(total), "", "", ""))
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *(line[n].rjust(widths[n]) for n in (1, 2, 3)), line[4]]).rstrip()
        for line in lines
    )


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _memory(mib: float | None) -> str:
    return "–" if mib is None else f"{mib:,.0f} MiB"


def _where(record: dict[str, Any]) -> str:
    threads = f", {counted(record['threads'], 'thread')}" if record["threads"] else ""
    status = "" if record["status"] == "FINISHED" else f" ({record['status']})"
    return f"{record['device'] or '–'}{threads} on {record['host']}{status}"
