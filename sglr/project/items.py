"""A project's pipeline: the items that dvc.yaml and params.yaml define, and what dvc.lock says of those that ran."""

import contextlib
import hashlib
import itertools
import json
import platform
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import yaml

from sglr import config, files
from sglr.config import packages

INPUTS = "inputs.json"
"""Beside the snapshots of an item: what its result depends on."""
FINISHED = "finished.json"
"""Beside them once its outputs are written."""
_ATTEMPTS = 10


@dataclass(frozen=True)
class Item:
    """One item of the pipeline, as dvc.yaml and params.yaml define it now."""

    name: str
    command: str
    deps: tuple[str, ...]
    keys: tuple[str, ...]
    outs: tuple[str, ...]

    @property
    def stage(self) -> str:
        """Its stage's name, such as train."""
        return self.name.partition("@")[0]


@dataclass(frozen=True)
class Record:
    """The dvc.lock entry of an item that ran: its command, values by key of params.yaml, MD5 of its deps and outs by
    path."""

    command: str | None
    values: dict[str, Any]
    deps: dict[str, str | None]
    outs: dict[str, str | None]


@dataclass(frozen=True)
class Inputs:
    """Everything the result of an item depends on: the values of its keys, the SHA-256 of its deps by path, the
    versions of Python, torch and pyautoattack."""

    item: str
    values: dict[str, Any]
    deps: dict[str, str]
    versions: dict[str, str]

    @classmethod
    def now(cls, item: str, values: dict[str, Any], deps: Iterable[str], root: Path = Path()) -> Self:
        """As they are now."""
        import torch

        versions = {"Python": platform.python_version(), "torch": torch.__version__}
        if item.startswith("evaluate"):
            versions["pyautoattack"] = packages.version("pyautoattack") or "none"
        return cls(item, values, {dep: files.digest(root / dep) for dep in deps}, versions)

    @classmethod
    def read(cls, path: Path) -> Self:
        """From a file that ``write`` wrote; FileError where it is no such file."""
        found = files.read_json(path)
        kinds = {"item": str, "values": dict, "deps": dict, "versions": dict}
        if found.keys() != kinds.keys() or not all(isinstance(found[name], kinds[name]) for name in kinds):
            raise files.FileError(f"{path} does not hold the inputs of an item.")
        return cls(**found)

    def write(self, path: Path) -> None:
        """As JSON."""
        files.write_json(path, asdict(self))

    def differences(self, now: Self) -> Iterator[str]:
        """In words what is another in ``now``."""
        for key in dict.fromkeys([*self.values, *now.values]):
            yield from changes(key, self.values.get(key), now.values.get(key))
        for path in dict.fromkeys([*self.deps, *now.deps]):
            if self.deps.get(path) != now.deps.get(path):
                yield f"{path} changed"
        for name, version in now.versions.items():
            yield from changes(name, self.versions.get(name), version)

    @property
    def hash(self) -> str:
        """A name for them, of 16 hexadecimal digits."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


def read_items(root: Path) -> list[Item]:
    """The items of dvc.yaml with their matrices filled in from params.yaml; FileError where there is no pipeline,
    ConfigError for a params.yaml that cannot be read."""
    params = read_params(root)
    try:
        pipeline = yaml.safe_load((root / "dvc.yaml").read_text(encoding="utf-8"))
        return [item for name, entry in pipeline["stages"].items() for item in _expanded(name, entry, params)]
    except OSError as error:
        raise files.FileError(f"{error.filename} cannot be read; run this in the project's root folder.") from None
    except yaml.YAMLError as error:
        raise files.FileError(f"dvc.yaml is not valid YAML: {error}") from None
    except (UnicodeDecodeError, LookupError, TypeError, AttributeError) as error:
        raise files.FileError(f"dvc.yaml does not describe a pipeline: {error!r}") from None


def read_params(root: Path) -> dict[str, Any]:
    """The values of params.yaml, unchecked; FileError and ConfigError where it cannot be read."""
    try:
        text = (root / "params.yaml").read_text(encoding="utf-8")
    except OSError as error:
        raise files.FileError(f"{error.filename} cannot be read; run this in the project's root folder.") from None
    except UnicodeDecodeError as error:
        raise config.ConfigError(f"cannot read {root / 'params.yaml'}: {error}") from None
    return config.parse(text)


def item_of(entry: dict[str, Any], name: str, values: dict[str, Any]) -> Item:
    """The item that a stage's entry of dvc.yaml defines for the values of its matrix (none where it has no matrix)."""
    text = json.dumps(entry)
    for key, value in values.items():
        text = text.replace(f"${{item.{key}}}", json.dumps(str(value))[1:-1])
    filled = json.loads(text)
    outs = [*filled.get("outs", ()), *filled.get("metrics", ()), *filled.get("plots", ())]
    return Item(
        f"{name}@{'-'.join(map(str, values.values()))}" if values else name,
        filled.get("cmd", ""),
        tuple(filled.get("deps", ())),
        tuple(filled.get("params", ())),
        tuple(next(iter(out)) if isinstance(out, dict) else out for out in outs),
    )


def value_of(params: dict[str, Any], key: str) -> Any:
    """The value of a dotted key; None where there is none (the config reports it)."""
    value: Any = params
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def changes(key: str, before: Any, now: Any) -> Iterator[str]:
    """In words what is another in a key's value: the values, part by part."""
    if isinstance(before, dict) and isinstance(now, dict):
        for part in dict.fromkeys([*before, *now]):
            if before.get(part) != now.get(part):
                yield from changes(f"{key}.{part}", before.get(part), now.get(part))
    elif before != now:
        yield f"{key}: {json.dumps(before)} -> {json.dumps(now)}"


def records(root: Path) -> dict[str, Record]:
    """What dvc.lock says, by item; empty without one, FileError for one that is damaged or holds a merge's conflict."""
    path = root / "dvc.lock"
    if not path.is_file():
        return {}
    # DVC may be writing it at this moment.
    for _ in range(_ATTEMPTS):
        with contextlib.suppress(
            OSError, yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, RecursionError
        ):
            stages = config.recorded(path.read_text(encoding="utf-8"))["stages"]
            return {name: _record(entry) for name, entry in stages.items()}
        time.sleep(0.1)
    if "\n<<<<<<< " in path.read_text(encoding="utf-8", errors="replace"):
        raise files.FileError(
            f"{path} has conflicts of a merge: `git checkout --ours dvc.lock artifacts`, then `dvc repro`; what ran on"
            " either side comes from DVC's cache."
        )
    raise files.FileError(f"{path} is damaged: take it from git, or delete it (what is in DVC's cache stays known).")


def readable_records(root: Path) -> dict[str, Record]:
    """As ``records``, and empty where dvc.lock cannot be read."""
    with contextlib.suppress(files.FileError, OSError):
        return records(root)
    return {}


def _record(entry: dict[str, Any]) -> Record:
    deps, outs = ({one["path"]: one.get("md5") for one in entry.get(kind, ())} for kind in ("deps", "outs"))
    return Record(entry.get("cmd"), dict(entry.get("params", {}).get("params.yaml", {})), deps, outs)


def _expanded(name: str, entry: dict[str, Any], params: dict[str, Any]) -> Iterator[Item]:
    matrix = {key: _listed(params, values.strip("${}")) for key, values in entry.get("matrix", {}).items()}
    for combination in itertools.product(*matrix.values()):
        yield item_of(entry, name, dict(zip(matrix, combination, strict=True)))


def _listed(params: dict[str, Any], key: str) -> list[Any]:
    """The list that a matrix runs over; ConfigError for anything else."""
    found = value_of(params, key)
    if not isinstance(found, list):
        said = f"params.yaml: {key} must be a list (found {found!r})"
        raise config.ConfigError(f"{said}; `sglr check` lists the errors.")
    return found
