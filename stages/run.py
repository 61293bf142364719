"""One item at work: what its stage hands to the library call, and what it says and records meanwhile."""

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sglr import files, processes, tracking
from sglr.config import Config
from stages.pipeline import ARTIFACTS, Definition
from stages.watch import Watch

if TYPE_CHECKING:
    import torch

    from sglr.training import Hooks


@dataclass
class Run:
    """One item at work."""

    config: Config
    definition: Definition
    tracker: tracking.Tracker
    device: "torch.device"
    watch: Watch
    leads: bool = True
    """Whether this process prints and writes for all that a launcher started."""

    def hooks(self) -> "Hooks":
        """A training's snapshots, a row's way to the tracker, when to stop. What it will lack is said now."""
        from sglr.doctor import space
        from sglr.training import Hooks, Snapshots
        from sglr.training.snapshots import interval

        space.require(self.config, ARTIFACTS / "data", Path(), partial(click.echo, err=True))
        seconds = interval(os.environ.get("SGLR_SNAPSHOT_SECONDS", "30"))
        if self.leads and self.definition.stage == "warmup":
            known = space.expected(self.config, ARTIFACTS / "data")
            self._say_misfits(known.classes, known.shape)
        if self.leads:
            self.definition.note_inputs()
        snapshots = Snapshots(self.definition.snapshots, seconds, warn=partial(click.echo, err=True))
        self.watch.graceful = True
        return Hooks(snapshots, self._say_resumed, self._log_row, should_stop=lambda: self.watch.reason is not None)

    def training_processes(self) -> int:
        """By default one, so that the number of GPUs does not alter the last bits."""
        return 1 if _nproc() == "auto" else processes.count(_nproc(), self.device)

    def evaluation_processes(self) -> int:
        """By default one for each GPU: their number changes no outcome."""
        return processes.count(_nproc(), self.device)

    def pieces(self) -> Path:
        """Where an evaluation's finished pieces lie."""
        if self.leads:
            self.definition.note_inputs()
        return self.definition.snapshots

    def cost(self, part: str, seconds: float) -> None:
        """Record how long a part of the work took: a time belongs to no output."""
        self.tracker.metrics({f"seconds/{part}": seconds}, step=0)

    def say_continued(self, pieces: int) -> None:
        """How many pieces of an evaluation an earlier run left."""
        click.echo(f"resuming {self.definition.item}: {pieces} finished pieces of it are kept", err=True)

    def say_natural(self, checkpoint: str, accuracy: float, examples: int) -> None:
        """A checkpoint's natural accuracy, before it is attacked."""
        said = f"{self.definition.item}: natural accuracy of {checkpoint} {accuracy:.2%} ({examples:,} test examples)"
        click.echo(said, err=True)

    def finish(self, folder: Path, *, weights: Path | None = None, headline: str | None = None) -> None:
        """Log a finished item: its small files, the hash of its weights, its headline numbers on the parent run."""
        if not self.leads:
            return
        metrics = files.read_json(folder / "metrics.json")
        if headline:
            parts = {name: metrics[name] for name in ("best", "last", "gap", "n_examples") if name in metrics}
            self.tracker.headline(
                {f"{headline}/{part}/{name}": value for part, row in parts.items() for name, value in row.items()}
            )
        if metrics.get("flags"):
            self.tracker.tags({"flags": "; ".join(metrics["flags"])[:4000]})
        if weights:
            self.tracker.tags({"weights_md5": files.md5(weights)})
        for path in sorted(folder.glob("*")):
            if path.suffix in (".json", ".csv"):
                self.tracker.artifact(path)
        if self.definition.snapshots.is_dir():
            self.definition.mark_finished(folder / "metrics.json")

    def _say_misfits(self, num_classes: int, shape: tuple[int, int, int]) -> None:
        """What the evaluation will refuse, hours before it does."""
        from sglr.attacks.requested import misfits  # loads torch

        for misfit in misfits(self.config, num_classes, shape):
            click.echo(f"the evaluation will stop, after the trainings: {misfit}", err=True)

    def _say_resumed(self, epoch: int, step: int) -> None:
        if self.leads:
            click.echo(f"resuming {self.definition.item} from epoch {epoch}, step {step}", err=True)

    def _log_row(self, row: dict[str, Any]) -> None:
        values = {key: float(value) for key, value in row.items() if key != "epoch" and value is not None}
        self.tracker.metrics(values, step=row["epoch"])


def _nproc() -> str:
    """The number of processes requested: a number, or auto."""
    return os.environ.get("SGLR_NPROC", "auto")
