"""A project's progress: which items are done, running, orphaned, out of date and why, waiting, or not run.

Worked out from dvc.yaml, params.yaml, dvc.lock and the files, without DVC, whose own status fails during a run.
"""

import contextlib
import itertools
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

from sglr import config, files
from sglr.running import Progress, processes_at_work

State = Literal["done", "running", "orphaned", "out of date", "waiting", "not run"]
_MOST_REASONS = 3
_ATTEMPTS = 10
# It runs again after any edit of params.yaml and writes the same output: nothing waits for it.
_SAME_EVERY_TIME = "check"


@dataclass(frozen=True)
class Item:
    """One item of the pipeline, as dvc.yaml and params.yaml define it now."""

    name: str
    command: str
    deps: tuple[str, ...]
    keys: tuple[str, ...]
    outs: tuple[str, ...]


@dataclass
class Status:
    """The state of an item; ``reasons`` why it is out of date or waiting; the progress of a running one, in ``reasons``
    as text and in ``progress``."""

    item: str
    state: State
    reasons: list[str] = field(default_factory=list)
    progress: Progress | None = None


def status(root: Path) -> list[Status]:
    """The state of every item, in the order of dvc.yaml.

    Raises FileError where there is no pipeline, ConfigError for a params.yaml that cannot be read.
    """
    items, params = read_items(root), _params(root)
    locked = _locked(root)
    _digest.cache_clear()
    _md5.cache_clear()
    found: dict[str, Status] = {}
    running = processes_at_work(root)
    makers = {out: item.name for item in items for out in item.outs}
    for item in _in_order(items, makers):
        if item.name in running:
            alone, progress = running[item.name]
            said = [str(progress)] if str(progress) else []
            found[item.name] = Status(item.name, "orphaned" if alone else "running", said, progress)
            continue
        pending = sorted(name for name in _upstream(item, makers) if found[name].state != "done")
        if _SAME_EVERY_TIME in locked:
            pending = [name for name in pending if name != _SAME_EVERY_TIME]
        if pending:
            found[item.name] = Status(item.name, "waiting", [f"for {_few(pending)}"])
        elif item.name not in locked:
            found[item.name] = Status(item.name, "not run")
        else:
            reasons = list(_differences(root, item, locked[item.name], params))
            found[item.name] = Status(item.name, "out of date" if reasons else "done", reasons)
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


def names(root: Path) -> set[str] | None:
    """The items of the current study; None where there is no pipeline."""
    try:
        return {item.name for item in read_items(root)}
    except (files.FileError, config.ConfigError):
        return None


def read_items(root: Path) -> list[Item]:
    """The items of dvc.yaml with their matrices filled in from params.yaml."""
    try:
        pipeline = yaml.safe_load((root / "dvc.yaml").read_text(encoding="utf-8"))
        params = _params(root)
        return [item for name, entry in pipeline["stages"].items() for item in _expanded(name, entry, params)]
    except OSError as error:
        raise files.FileError(f"{error.filename} cannot be read; run this in the project's root folder.") from None
    except (yaml.YAMLError, UnicodeDecodeError, LookupError, TypeError, AttributeError) as error:
        raise files.FileError(f"dvc.yaml does not describe a pipeline: {error!r}") from None


def _expanded(name: str, entry: dict[str, Any], params: dict[str, Any]) -> Iterator[Item]:
    matrix = {key: _listed(params, values.strip("${}")) for key, values in entry.get("matrix", {}).items()}
    for combination in itertools.product(*matrix.values()):
        text = json.dumps(entry)
        for key, value in zip(matrix, combination, strict=True):
            text = text.replace(f"${{item.{key}}}", str(value))
        filled = json.loads(text)
        yield Item(
            f"{name}@{'-'.join(map(str, combination))}" if matrix else name,
            filled["cmd"],
            tuple(filled.get("deps", ())),
            tuple(filled.get("params", ())),
            tuple(next(iter(out)) if isinstance(out, dict) else out for out in _outs(filled)),
        )


def _listed(params: dict[str, Any], key: str) -> list[Any]:
    """The list that a matrix runs over; ConfigError for anything else."""
    found = _value(params, key)
    if not isinstance(found, list):
        said = f"params.yaml: {key} must be a list (found {found!r})"
        raise config.ConfigError(f"{said}; `sglr check` lists the errors.")
    return found


def _params(root: Path) -> dict[str, Any]:
    try:
        text = (root / "params.yaml").read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise config.ConfigError(f"cannot read {root / 'params.yaml'}: {error}") from None
    return config.parse(text)


def _outs(entry: dict[str, Any]) -> list[Any]:
    return [*entry.get("outs", ()), *entry.get("metrics", ()), *entry.get("plots", ())]


def _value(params: dict[str, Any], key: str) -> Any:
    value: Any = params
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _locked(root: Path) -> dict[str, Any]:
    """The dvc.lock entry of each item; empty without one."""
    path = root / "dvc.lock"
    if not path.is_file():
        return {}
    # DVC may be writing it at this moment.
    for _ in range(_ATTEMPTS):
        with contextlib.suppress(OSError, yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError):
            found: dict[str, Any] = config.recorded(path.read_text(encoding="utf-8"))["stages"]
            if all(isinstance(entry, dict) for entry in found.values()):
                return found
        time.sleep(0.1)
    if "\n<<<<<<< " in path.read_text(encoding="utf-8", errors="replace"):
        raise files.FileError(
            f"{path} has conflicts of a merge: `git checkout --ours dvc.lock artifacts`, then `dvc repro`; what ran on"
            " either side comes from DVC's cache."
        )
    raise files.FileError(f"{path} is damaged: take it from git, or delete it (what is in DVC's cache stays known).")


def _upstream(item: Item, makers: dict[str, str]) -> set[str]:
    """The items that make what this one depends on."""
    return {
        name
        for dep in item.deps
        for out, name in makers.items()
        if dep == out or out.startswith(f"{dep}/") or dep.startswith(f"{out}/")
    }


def _in_order(items: list[Item], makers: dict[str, str]) -> list[Item]:
    """Every item after those it depends on."""
    ordered: dict[str, Item] = {}
    known = {item.name: item for item in items}

    def visit(item: Item) -> None:
        for name in sorted(_upstream(item, makers) - ordered.keys() - {item.name}):
            visit(known[name])
        ordered.setdefault(item.name, item)

    for item in items:
        visit(item)
    return list(ordered.values())


def _differences(root: Path, item: Item, recorded: dict[str, Any], params: dict[str, Any]) -> Iterator[str]:
    """Differences from dvc.lock, in words."""
    if recorded.get("cmd") != item.command:
        yield "its command changed"
    before = recorded.get("params", {}).get("params.yaml", {})
    for key in item.keys:
        now = _value(params, key)
        if key not in before:
            yield f"{key} is new"
        elif before[key] != now:
            yield from _changed(key, before[key], now)
    hashes = {entry["path"]: entry.get("md5") for entry in recorded.get("deps", ())}
    for dep in item.deps:
        if hashes.get(dep) != _digest(root / dep):
            yield f"{dep} changed"
    made = {entry["path"]: entry.get("md5") for entry in recorded.get("outs", ())}
    for out in item.outs:
        if not (root / out).exists():
            yield f"{out} is missing"
        elif made.get(out) != _digest(root / out):
            yield f"{out} was modified"


def _changed(key: str, before: Any, now: Any) -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        for part in dict.fromkeys([*before, *now]):
            if before.get(part) != now.get(part):
                yield from _changed(f"{key}.{part}", before.get(part), now.get(part))
    else:
        yield f"{key}: {json.dumps(before)} -> {json.dumps(now)}"


@cache
def _digest(path: Path) -> str | None:
    return files.dvc_digest(path, _md5)


@cache
def _md5(path: Path) -> str:
    return files.md5(path)


def _few(names: list[str]) -> str:
    more = len(names) - _MOST_REASONS
    return ", ".join(names[:_MOST_REASONS]) + (f" and {more} more" if more > 0 else "")


def lines(found: list[Status]) -> Iterator[tuple[State, str]]:
    """One line per item, with its state (for colours)."""
    width = max(len(one.item) for one in found)
    for one in found:
        yield one.state, f"{one.item:<{width}}  {one.state:<11}  {_few(one.reasons)}".rstrip()
