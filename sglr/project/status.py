"""A project's progress: which items are done, running, orphaned, interrupted, out of date and why, waiting, or not run.

Worked out from dvc.yaml, params.yaml, dvc.lock and the files, without DVC, whose own status fails during a run.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sglr import config, files
from sglr.config.wording import some
from sglr.project import checksums
from sglr.project.interrupted import left_behind
from sglr.project.items import Item, Record, changes, read_items, read_params, records, value_of
from sglr.project.order import in_order, upstream_of
from sglr.project.running import Progress, processes_at_work

State = Literal["done", "running", "orphaned", "interrupted", "out of date", "waiting", "not run"]
_MOST_REASONS = 3
# It runs again after any edit of params.yaml and writes the same output: nothing waits for it.
_SAME_EVERY_TIME = "check"


@dataclass
class Status:
    """The state of an item; ``reasons`` why it is out of date or waiting, where an interrupted one continues, and what
    is left of a run that would not be continued; the progress of a running one, as text and in ``progress``."""

    item: str
    state: State
    reasons: list[str] = field(default_factory=list)
    progress: Progress | None = None


def status(root: Path) -> list[Status]:
    """The state of every item, in the order of dvc.yaml.

    Raises FileError where there is no pipeline, ConfigError for a params.yaml that cannot be read.
    """
    items, params = read_items(root), read_params(root)
    ran = records(root)
    found: dict[str, Status] = {}
    running = processes_at_work(root)
    upstream = upstream_of(items)
    with checksums.kept(root) as digest:
        for item in in_order(items, upstream):
            if item.name in running:
                alone, progress = running[item.name]
                said = [str(progress)] if str(progress) else []
                found[item.name] = Status(item.name, "orphaned" if alone else "running", said, progress)
                continue
            pending = sorted(name for name in upstream[item.name] if found[name].state != "done")
            if _SAME_EVERY_TIME in ran:
                pending = [name for name in pending if name != _SAME_EVERY_TIME]
            if pending:
                found[item.name] = Status(item.name, "waiting", [f"for {some(pending, _MOST_REASONS)}"])
                continue
            reasons = list(_differences(root, item, ran[item.name], params, digest)) if item.name in ran else None
            found[item.name] = Status(item.name, "done") if reasons == [] else _to_run(root, item, params, reasons)
    return [found[item.name] for item in items]


def is_outdated(root: Path, item: str) -> bool:
    """Whether an item does not match the current files; False where there is no pipeline. Raises as ``status``."""
    if not (root / "dvc.yaml").is_file():
        return False
    return any(one.item == item and one.state != "done" for one in status(root))


def can_go_on(root: Path, found: list[Status]) -> bool:
    """Whether params.yaml can be used; it is not read where its check is done."""
    if any(one.item == _SAME_EVERY_TIME and one.state == "done" for one in found):
        return True
    try:
        config.load(root / "params.yaml")
    except config.ConfigError:
        return False
    return True


def restorable(root: Path, found: list[Status]) -> list[str]:
    """Items whose files are gone, as after a run that was refused or stopped, while DVC's cache has those of the last.

    Only a cache in its usual place is looked into; metrics.json is git's.
    """
    ran, cache = records(root), root / ".dvc" / "cache" / "files" / "md5"

    def lost(out: str, digest: str | None) -> bool:
        missing = Path(out).name != "metrics.json" and not (root / out).exists()
        return missing and digest is not None and (cache / digest[:2] / digest[2:]).exists()

    idle = [one.item for one in found if one.state not in ("done", "running", "orphaned") and one.item in ran]
    return [item for item in idle if any(lost(*out) for out in ran[item].outs.items())]


def names(root: Path) -> set[str] | None:
    """The items of the current study; None where there is no pipeline."""
    try:
        return {item.name for item in read_items(root)}
    except (files.FileError, config.ConfigError):
        return None


def _to_run(root: Path, item: Item, params: dict[str, Any], reasons: list[str] | None) -> Status:
    """The state of an item that would run now; ``reasons`` why again, None for the first time."""
    left = left_behind(root, item, params)
    if left is not None and left.fits:
        return Status(item.name, "interrupted", [f"{left.reached}; continues there"])
    said = []
    if left is not None:
        anew = f"does not fit ({some(left.differences, _MOST_REASONS)})" if left.differences else "begins anew"
        said = [f"a run that was stopped {left.reached} {anew}"]
    return Status(item.name, "not run" if reasons is None else "out of date", said + (reasons or []))


def _differences(
    root: Path, item: Item, record: Record, params: dict[str, Any], digest: Callable[[Path], str | None]
) -> Iterator[str]:
    """Differences from dvc.lock, in words."""
    if record.command != item.command:
        yield "its command changed"
    for key in item.keys:
        if key not in record.values:
            yield f"{key} is new"
        else:
            yield from changes(key, record.values[key], value_of(params, key))
    for dep in item.deps:
        if record.deps.get(dep) != digest(root / dep):
            yield f"{dep} {'changed' if (root / dep).exists() else 'is missing'}"
    missing = [out for out in item.outs if not (root / out).exists()]
    if len(missing) > 1 and len(missing) == len(item.outs):
        yield "its outputs are missing"
        return
    for out in item.outs:
        if out in missing:
            yield f"{out} is missing"
        elif record.outs.get(out) != digest(root / out):
            yield f"{out} was modified"


def lines(found: list[Status]) -> Iterator[tuple[State, str]]:
    """One line per item, with its state (for colours)."""
    width = max(len(one.item) for one in found)
    for one in found:
        yield one.state, f"{one.item:<{width}}  {one.state:<11}  {some(one.reasons, _MOST_REASONS)}".rstrip()
