"""Items that were stopped before their end: how far they came, and whether they would be continued."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sglr import files
from sglr.config.wording import counted
from sglr.project.items import FINISHED, INPUTS, Inputs, Item, value_of
from sglr.project.running import held


@dataclass(frozen=True)
class LeftBehind:
    """What a run left: how far it came, in words; whether it would be continued; if not, what has changed since, which
    is nothing where it left no snapshot."""

    reached: str
    fits: bool
    differences: list[str]


def left_behind(root: Path, item: Item, params: dict[str, Any]) -> LeftBehind | None:
    """What is left of an item's unfinished runs: of one that would be continued, else of one that was stopped before
    anything was kept, else of the latest; None if nothing.

    Snapshots that a queued or temporary DVC experiment left are among them: they lie in the project, too. Those that
    one is at work with are not.
    """
    found: list[tuple[float, Inputs, str]] = []
    begun: list[Inputs] = []
    for path in (root / ".sglr" / "snapshots" / item.stage).glob(f"*/{INPUTS}"):
        folder = path.parent
        # Damaged, or removed at this moment by a stage.
        with contextlib.suppress(files.FileError, OSError, LookupError, TypeError, ValueError, AttributeError):
            inputs = Inputs.read(path)
            if inputs.item != item.name or (folder / FINISHED).exists():
                continue
            reached = _reached(folder, inputs)
            if held(root / ".sglr" / "locks" / item.stage / f"{folder.name}.lock"):
                continue
            if reached:
                found.append((path.stat().st_mtime, inputs, reached))
            else:
                begun.append(inputs)
    if not found and not begun:
        return None
    now = Inputs.now(item.name, {key: value_of(params, key) for key in item.keys}, item.deps, root)
    for _, inputs, reached in found:
        if inputs.hash == now.hash:
            return LeftBehind(reached, True, [])
    if any(inputs.hash == now.hash for inputs in begun):
        return LeftBehind("before anything was kept", False, [])
    if not found:
        return None
    _, inputs, reached = max(found, key=lambda run: run[0])
    return LeftBehind(reached, False, list(inputs.differences(now)) or ["a value is written in another way"])


def _reached(folder: Path, inputs: Inputs) -> str | None:
    """How far a run came; None where it left nothing that could be continued."""
    stage = inputs.item.partition("@")[0]
    if stage == "evaluate":
        pieces = sum(1 for _ in folder.rglob("*.npz"))
        return f"after {counted(pieces, 'piece')}" if pieces else None
    snapshots = sorted(path.name for path in folder.glob("snapshot-*"))
    if not snapshots:
        return None
    epoch = int(snapshots[-1].removeprefix("snapshot-").rpartition("-")[0])
    epochs: int = inputs.values[stage]["epochs"]
    if stage == "warmup" and inputs.values["warmup"]["objective"] == "standard":
        epoch += epochs  # a natural warm-up's epochs end at 0
    return f"in epoch {epoch} of {epochs}" if epoch <= epochs else "after its last epoch"
