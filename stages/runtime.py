"""Everything a stage does around its one library call: config, device, threads, lock, snapshots, signals, tracking."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sglr import config, files, processes, tracking
from sglr.config.errors import for_users
from sglr.config.names import WEIGHTS
from sglr.project.items import readable_records
from stages.pipeline import Definition, experiment, home
from stages.watch import Stopped, Watch

if TYPE_CHECKING:
    import torch

    from sglr.training import Hooks

ARTIFACTS = Path("artifacts")
# Long enough for an orphan of a killed pipeline to notice and leave.
_LOCK_WAIT = 60
# These resume from snapshots, which an experiment elsewhere may be at work on as long as a training takes.
_RESUMED = ("warmup", "train", "evaluate")


@dataclass
class Run:
    """One item at work."""

    config: config.Config
    definition: Definition
    tracker: tracking.Tracker
    device: "torch.device"
    watch: Watch
    leads: bool = True
    """Whether this process prints and writes for all that a launcher started."""

    def hooks(self) -> "Hooks":
        """Of a training: its snapshots, a row's way to the tracker, when to stop. What it will lack is said now."""
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

    def nproc(self) -> int:
        """The processes of a training. On its own it stays one, so that the GPU count does not alter its last bits."""
        return 1 if _nproc() == "auto" else processes.count(_nproc(), self.device)

    def pieces(self) -> dict[str, Any]:
        """Keywords of ``sglr.evaluation.evaluate``: where finished pieces lie, how many processes share them,
        messages on resuming and on natural accuracy."""
        if self.leads:
            self.definition.note_inputs()
        return {
            "pieces": self.definition.snapshots,
            "nproc": processes.count(_nproc(), self.device),
            "on_resume": self._say_continued,
            "on_natural": self._say_natural,
        }

    def cost(self, part: str, seconds: float) -> None:
        """Record how long a part of the work took: a time belongs to no output."""
        self.tracker.metrics({f"seconds/{part}": seconds}, step=0)

    def _say_misfits(self, num_classes: int, shape: tuple[int, int, int]) -> None:
        """What the evaluation will refuse, hours before it does."""
        from sglr.attacks.requested import misfits  # loads torch

        for misfit in misfits(self.config, num_classes, shape):
            click.echo(f"the evaluation will stop, after the trainings: {misfit}", err=True)

    def _say_resumed(self, epoch: int, step: int) -> None:
        if self.leads:
            click.echo(f"resuming {self.definition.item} from epoch {epoch}, step {step}", err=True)

    def _say_continued(self, pieces: int) -> None:
        click.echo(f"resuming {self.definition.item}: {pieces} finished pieces of it are kept", err=True)

    def _say_natural(self, checkpoint: str, accuracy: float, examples: int) -> None:
        said = f"{self.definition.item}: natural accuracy of {checkpoint} {accuracy:.2%} ({examples:,} test examples)"
        click.echo(said, err=True)

    def _log_row(self, row: dict[str, Any]) -> None:
        values = {key: float(value) for key, value in row.items() if key != "epoch" and value is not None}
        self.tracker.metrics(values, step=row["epoch"])

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


@contextlib.contextmanager
def stage(
    name: str, *, method: str | None = None, seed: int | None = None, parent: str | None = None, track: bool = True,
    shared: bool = False,
) -> Iterator[Run]:  # fmt: skip
    """Everything around a stage's work. Errors a user can cause give one message and exit status 1.

    Of several processes that a launcher such as torchrun started, one holds the lock and tracks; the others work with
    it where the stage is ``shared``, else they end at once.
    """
    try:
        launch = processes.launched()
        leads = launch is None or launch.rank == 0
        if not leads and not shared:
            raise SystemExit(0)
        with Watch() as watch:
            definition = Definition.read(name, method, seed)
            settings = config.load()
            definition.require_listed(settings)
            definition.require_inputs()
            given = definition.given()
            if leads:
                definition.prune_snapshots(definition.snapshots if name in _RESUMED else None)
            if experiment() is not None:  # downloads outlive its copy
                os.environ.setdefault("SGLR_DATA_ROOT", str(home() / ".sglr" / "data"))
            watch.check()
            with _alone(definition) if leads else contextlib.nullcontext():
                if leads:
                    definition.clear_partial()
                device = _prepare_torch(settings.experiment.threads)
                with _tracker(definition, settings, parent, device, track and leads) as tracker:
                    with _stopped_if_asked(watch):
                        yield Run(settings, definition, tracker, device, watch, leads)
                    definition.require_unchanged(given)
    except Stopped as stopped:
        click.echo(f"{name}: {stopped.reason}", err=True)
        raise
    except Exception as error:
        text = for_users(error)
        if text is None:
            raise
        raise click.ClickException(text) from error


@contextlib.contextmanager
def _alone(definition: Definition) -> Iterator[None]:
    """Hold the item's locks: two processes never work on the same item, or with the same snapshots."""
    holder = f"another process that works on {definition.item}"
    say = partial(click.echo, f"waiting for {holder}", err=True)
    with files.lock(definition.lock, timeout=_LOCK_WAIT, holder=holder, on_wait=say):
        if definition.stage not in _RESUMED:
            yield
            return
        with files.lock(definition.snapshots_lock, timeout=-1, holder=holder, on_wait=say):
            yield


@contextlib.contextmanager
def _stopped_if_asked(watch: Watch) -> Iterator[None]:
    """Once a stop was requested, however the work ends, raise Stopped."""
    try:
        yield
    except Exception:
        watch.check()
        raise
    watch.graceful = False
    watch.check()


def _tracker(
    definition: Definition, settings: config.Config, parent: str | None, device: "torch.device", track: bool
) -> contextlib.AbstractContextManager[tracking.Tracker]:
    if not track:
        return contextlib.nullcontext(tracking.NullTracker())
    labels = {"method": definition.method, "seed": definition.seed}
    tags = {key: str(value) for key, value in labels.items() if value is not None}
    query = None
    if parent:
        trained = ARTIFACTS / parent / f"{definition.method}-{definition.seed}"
        source = Definition.read(parent, definition.method, definition.seed)
        query = tracking.ParentQuery(
            method=tags["method"],
            seed=tags["seed"],
            params_hash=source.params_hash,
            weights_md5=files.md5(trained / "last" / WEIGHTS),
            history=files.read_rows(trained / "history.csv"),
            params=tracking.flatten(source.values),
        )
    return tracking.run(
        root=home(),
        copy=experiment(),
        experiment=settings.experiment.name,
        stage=definition.stage,
        item=definition.item,
        tags={**tags, "params_hash": definition.params_hash, "git_commit": _git_commit()},
        params=tracking.flatten(definition.values),
        key=definition.fingerprint,
        parent=query,
        record={"device": str(device), "threads": settings.experiment.threads},
    )


def _nproc() -> str:
    """The number of processes requested: a number, or auto."""
    return os.environ.get("SGLR_NPROC", "auto")


def _prepare_torch(threads: int) -> "torch.device":
    """Set the thread count, which affects the last bits, and choose the device that SGLR_DEVICE requests."""
    import torch

    processes.keep_freed_memory()
    torch.set_num_threads(threads)
    return processes.device(os.environ.get("SGLR_DEVICE", "auto"))


def _git_commit() -> str:
    import subprocess

    try:
        asked = ["git", "rev-parse", "--quiet", "--verify", "HEAD"]
        found = subprocess.run(asked, capture_output=True, text=True, check=False)
    except OSError:  # no git on this machine
        return "unknown"
    commit, said = found.stdout.strip(), " ".join(found.stderr.split())
    if not commit and said and "not a git repository" not in said:  # such as one that git takes for another user's
        click.echo(f"recorded without the commit, which git does not tell: {said}", err=True)
    return commit or "unknown"


def remove_unlisted_items(settings: config.Config) -> None:
    """Remove the folders of methods and seeds no longer listed; DVC's cache keeps those that ran here. Others' stay."""
    listed = {f"{method}-{seed}" for method in settings.experiment.methods for seed in settings.experiment.seeds}
    outs = [out for record in readable_records(Path()).values() for out in record.outs]
    known = {folder for out in outs for folder in Path(out).parents}
    for name in ("train", "evaluate", "analyze"):
        for folder in (ARTIFACTS / name).glob("*"):
            if folder.is_dir() and folder.name not in listed and folder in known:
                shutil.rmtree(folder)
                click.echo(
                    f"removed {folder}, which params.yaml no longer lists (DVC's cache keeps what ran here)", err=True
                )
