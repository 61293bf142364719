"""One stage item in dvc.yaml and dvc.lock: its keys, its inputs, its snapshots, its locks."""

import hashlib
import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import yaml

from sglr import files
from sglr.config import Config, ConfigError
from sglr.project.items import FINISHED, INPUTS, Inputs, Item, item_of, read_params, value_of

_PARAMS, _PIPELINE = Path("params.yaml"), Path("dvc.yaml")
OWN = Path(".sglr")
ARTIFACTS = Path("artifacts")
# Where DVC makes the copies that queued and temporary experiments run in; they are removed afterwards.
_COPIES = (".dvc", "tmp", "exps")


@dataclass(frozen=True)
class Definition:
    """One item as dvc.yaml defines it, with the values its keys have in params.yaml now."""

    method: str | None
    seed: int | None
    entry: Item
    values: dict[str, Any]

    @classmethod
    def read(cls, stage: str, method: str | None = None, seed: int | None = None) -> Self:
        """The item's entry of dvc.yaml, with ``${item...}`` filled in; FileError outside a project's root folder."""
        for needed in (_PIPELINE, _PARAMS):
            if not needed.is_file():
                raise files.FileError(f"there is no {needed} in {Path.cwd()}; run this in the project's root folder.")
        values = {name: value for name, value in (("method", method), ("seed", seed)) if value is not None}
        entry = item_of(yaml.safe_load(_PIPELINE.read_text(encoding="utf-8"))["stages"][stage], stage, values)
        return cls(method, seed, entry, _values(entry.keys))

    @property
    def item(self) -> str:
        """DVC's name of it, such as train@sglr-0."""
        return self.entry.name

    @property
    def stage(self) -> str:
        """Its stage's name, such as train."""
        return self.entry.stage

    @property
    def params_hash(self) -> str:
        """Hash of the values of its keys."""
        return hashlib.sha256(json.dumps(self.values, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def lock(self) -> Path:
        """The lock held while a process works on it in this folder."""
        return OWN / "locks" / f"{self.item}.lock"

    @property
    def snapshots_lock(self) -> Path:
        """The lock of its snapshots: the project and its experiments' copies may come to the same ones at once."""
        return lock_of(self.snapshots)

    @cached_property
    def _inputs(self) -> Inputs:
        return Inputs.now(self.item, self.values, self.entry.deps)

    @property
    def fingerprint(self) -> str:
        """Hash of everything its result depends on: values, inputs, code, versions."""
        return self._inputs.hash

    def note_inputs(self) -> None:
        """Write beside its snapshots what they belong to, for ``sglr status``."""
        self._inputs.write(self.snapshots / INPUTS)

    @property
    def snapshots(self) -> Path:
        """Folder of its snapshots."""
        return all_snapshots() / self.stage / self.fingerprint

    def require_listed(self, config: Config) -> None:
        """ConfigError when its method or seed is not in the experiment."""
        experiment = config.experiment
        if self.method is not None and self.method not in experiment.methods:
            listed = ", ".join(experiment.methods)
            raise ConfigError(f"method {self.method!r} is not in experiment.methods: {listed}")
        if self.seed is not None and self.seed not in experiment.seeds:
            listed = ", ".join(map(str, experiment.seeds))
            raise ConfigError(f"seed {self.seed} is not in experiment.seeds: {listed}")

    def require_inputs(self) -> None:
        """FileError when a file or folder it depends on is missing."""
        for dep in self.entry.deps:
            if not Path(dep).exists():
                makes = f"`dvc repro {self.item}` runs what makes it"
                raise files.FileError(f"{self.item} needs {dep}, which is missing; {makes}.")

    def own_digests(self) -> dict[str, str]:
        """Digests, as they are now, of what it depends on and no other item makes: code, data."""
        own = (dep for dep in self.entry.deps if Path(dep).parts[0] != ARTIFACTS.name)
        return {dep: files.digest(dep) for dep in own}

    def require_unchanged(self, before: dict[str, str]) -> None:
        """ConfigError when one of its keys, or of what had the digests ``before`` at its start, was edited while it
        ran: DVC would record what is there now as what was used."""
        now = _values(self.entry.keys)
        changed = [key for key in self.entry.keys if now[key] != self.values[key]]
        if changed:
            raise ConfigError(
                f"{', '.join(changed)} changed in params.yaml while {self.item} was running; its result is discarded."
                " Run it again."
            )
        edited = [dep for dep, now in self.own_digests().items() if before[dep] != now]
        if edited:
            raise ConfigError(
                f"{', '.join(edited)} changed while {self.item} was running, so DVC would record the wrong code;"
                " the result is discarded. Run it again, or restore the old code to continue from its snapshots."
            )

    def mark_finished(self, metrics: Path) -> None:
        """Note that the outs are written. The snapshots stay until DVC has committed the outs: it may yet be killed."""
        files.write_json(
            self.snapshots / FINISHED, {"item": self.item, "path": str(metrics), "md5": files.md5(metrics)}
        )


def home() -> Path:
    """The project's root folder; in the copy that a queued or temporary DVC experiment runs in, the original's.

    What outlives a run (snapshots, journals, records, the run database, downloads) belongs there.
    """
    for folder in Path.cwd().parents:
        if folder.parts[-len(_COPIES) :] == _COPIES:
            return folder.parents[len(_COPIES) - 1]
    return Path()


def dvc_copy() -> str | None:
    """Name of the DVC experiment whose copy this is; None in the project itself."""
    if home() == Path():
        return None
    return os.environ.get("DVC_EXP_NAME") or Path.cwd().name


def all_snapshots() -> Path:
    """Folder of the snapshots of all items: by stage, then by what their results depend on."""
    return home() / OWN / "snapshots"


def lock_of(snapshots: Path) -> Path:
    """The lock of a folder of snapshots."""
    return snapshots.parents[2] / "locks" / snapshots.parent.name / f"{snapshots.name}.lock"


def _values(keys: tuple[str, ...]) -> dict[str, Any]:
    params = read_params(Path())
    return {key: value_of(params, key) for key in keys}
