"""A small study in a temporary copy of the repository, and what a user does with it."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sglr.config import parse

REPOSITORY = Path(__file__).parents[2]
ITEMS = [
    "check", "prepare", "warmup@0", "train@at-0", "train@sglr-0", "evaluate@at-0", "evaluate@sglr-0", "audit",
    "analyze@at-0", "analyze@sglr-0", "report",
]  # fmt: skip
EPOCHS = 24
Params = dict[str, Any]


def shrink(params: Params) -> None:
    """The shipped params, made small: training takes a second, and long enough to be killed in the middle."""
    params["experiment"] |= {"name": "tiny", "methods": ["at", "sglr"], "seeds": [0]}
    params["data"] |= {"source": {"name": "digits", "test_size": 100}, "train_size": 60, "validation_size": 30}
    params["model"] |= {"channels": [4, 8], "hidden": 16}
    params["train"] |= {"epochs": EPOCHS, "batch_size": 30, "keep_epochs": [2]}
    params["train"]["schedule"] |= {"milestones": [12, 18]}
    params["train"]["attack"]["steps"] = params["train"]["selection"]["steps"] = 2
    # Fewer of those that are declared only: DVC parses params.yaml anew for every item.
    params["methods"] = {name: params["methods"][name] for name in ("at", "sglr", "at_smoothing", "at_awp")}
    params["methods"]["sglr"]["labels"]["start_epoch"] = 2
    params["evaluate"] |= {"n_examples": 40, "attacks": {"fgsm": "fgsm", "pgd2": {"name": "pgd", "steps": 2}}}
    params["evaluate"]["sweep"] = {"eps_255": [25.5], "steps": 2}
    params["analyze"] |= {"n_examples": 60, "probe": {"folds": 2, "l2": 1.0}}
    params["analyze"]["attack"]["steps"] = 2
    params["analyze"] |= {"gradients": {"n_examples": 20, "chunk": 20}}
    params["analyze"]["sharpness"] = {"n_examples": 10, "iterations": 3, "radius": 1.0, "points": 3}
    params["report"]["bootstrap"] = 100


@dataclass(frozen=True)
class Ended:
    """A finished command: exit status, everything it said, the stage items it ran and those it took from the cache."""

    status: int
    output: str

    @property
    def ran(self) -> list[str]:
        return re.findall(r"^Running stage '(.+)':$", self.output, re.MULTILINE)

    @property
    def restored(self) -> list[str]:
        return re.findall(r"^Stage '(.+)' is cached - skipping run", self.output, re.MULTILINE)


class Project:
    """A project folder; ``python`` names the folder of the interpreter that stages start with."""

    def __init__(self, path: Path, python: Path | None = None) -> None:
        self.path = path
        self._logs: list[Path] = []
        self._groups: list[int] = []
        folders = [*([str(python)] if python else []), str(Path(sys.executable).parent), os.environ["PATH"]]
        hidden = ("DVC_", "MLFLOW_", "SGLR_DATA_ROOT", "SGLR_SNAPSHOT", "GIT_", "PYTHONPATH", "COV_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
        self.environment = kept | {
            "PATH": os.pathsep.join(folders), "DVC_NO_ANALYTICS": "true", "SHELL": "/bin/sh", "OMP_NUM_THREADS": "1",
        }  # fmt: skip

    @classmethod
    def create(cls, path: Path, python: Path | None = None) -> "Project":
        """The working tree's source files as a new git repository with tiny params and no results."""
        listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
        names = subprocess.run(listed, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.split("\0")
        for name in filter(None, names):
            if name.startswith(("artifacts/", "tests/")) or name == "dvc.lock" or not (REPOSITORY / name).is_file():
                continue
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, path / name)
        subprocess.run(["git", "init", "--quiet", "."], cwd=path, check=True)
        project = cls(path, python)
        project.change(shrink)
        return project

    def copy(self, path: Path, python: Path | None = None) -> "Project":
        """The whole project, results and caches included, somewhere else."""
        shutil.copytree(self.path, path, symlinks=True)
        return Project(path, python)

    def change(self, edit: Callable[[Params], object]) -> None:
        """Edit params.yaml."""
        file = self.path / "params.yaml"
        params = parse(file.read_text())
        edit(params)
        file.write_text(yaml.safe_dump(params, sort_keys=False))

    def forget(self, item: str) -> dict[str, Any]:
        """Remove an item: its outs, its entries in dvc.lock (which is returned) and the run cache; nothing after it."""
        stages = self.lock()
        entry = stages.pop(item)
        (self.path / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}, sort_keys=False))
        for out in entry["outs"]:
            target = self.path / out["path"]
            shutil.rmtree(target) if target.is_dir() else target.unlink()
        for run in list((self.path / ".dvc/cache/runs").glob("*/*/*")):
            if yaml.safe_load(run.read_text())["cmd"] == entry["cmd"]:
                shutil.rmtree(run.parent)  # an empty folder is an entry that DVC cannot read
        return dict(entry)

    def call(self, *command: str, **environment: str) -> Ended:
        """Run a command in the project; stdout and stderr together."""
        done = subprocess.run(
            command, cwd=self.path, env=self.environment | environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=500,
        )  # fmt: skip
        return Ended(done.returncode, done.stdout)

    def start(self, *command: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start a command in the project, as the leader of a process group of its own; see ``said``."""
        self._logs.append(self.path / f".sglr/said-{len(self._logs)}.txt")
        self._logs[-1].parent.mkdir(exist_ok=True)
        with self._logs[-1].open("wb") as log:
            started = subprocess.Popen(
                command, cwd=self.path, env=self.environment | environment, stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self._groups.append(started.pid)
        return started

    def end_all(self) -> None:
        """End what ``start`` started and what that left behind, whatever state it is in."""
        for group in self._groups:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)

    def said(self, *, before: bool = False) -> str:
        """What the command started last (or the one before it) has said so far."""
        return self._logs[-2 if before else -1].read_text()

    def repro(self, *arguments: str, **environment: str) -> Ended:
        """``dvc repro``, which must succeed."""
        ended = self.call("dvc", "repro", *arguments, **environment)
        assert ended.status == 0, ended.output
        return ended

    def lock(self) -> dict[str, Any]:
        """dvc.lock: by item, its command, deps, params and outs with their hashes."""
        return yaml.safe_load((self.path / "dvc.lock").read_text())["stages"]

    def read(self, name: str) -> str:
        """The text of a file below artifacts/."""
        return (self.path / "artifacts" / name).read_text()
