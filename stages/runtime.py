"""Everything a stage does around its one library call: config, device, threads, lock, snapshots, signals, tracking."""

import contextlib
import os
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import click

from sglr import files, processes
from sglr.config import load
from sglr.config.errors import for_users
from stages.cleaning import clear_partial, prune_snapshots, remove_unlisted_items
from stages.pipeline import ARTIFACTS, Definition, dvc_copy, home
from stages.run import Run
from stages.tracked import tracker_of
from stages.watch import Stopped, Watch

if TYPE_CHECKING:
    import torch

__all__ = ["ARTIFACTS", "remove_unlisted_items", "stage"]

# Long enough for an orphan of a killed pipeline to notice and leave.
_LOCK_WAIT = 60
# These resume from snapshots, which an experiment elsewhere may be at work on as long as a training takes.
_RESUMED = ("warmup", "train", "evaluate")


@contextlib.contextmanager
def stage(
    name: str, *, method: str | None = None, seed: int | None = None, parent: str | None = None, track: bool = True,
    shared: bool = False,
) -> Iterator[Run]:  # fmt: skip
    """Everything around a stage's work. Errors a user can cause give one message and exit status 1.

    parent: the stage that made the weights which this one measures. In MLflow the item's run is then a child of the run
    of that stage's item of the same method and seed, which also shows its headline numbers. None: it has no parent.
    track: whether the item has a run in MLflow; a stage that makes no result needs none.

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
            config = load()
            definition.require_listed(config)
            definition.require_inputs()
            before = definition.own_digests()
            if leads:
                prune_snapshots(definition.snapshots if name in _RESUMED else None)
            if dvc_copy() is not None:  # downloads outlive its copy
                os.environ.setdefault("SGLR_DATA_ROOT", str(home() / ".sglr" / "data"))
            watch.check()
            with _alone(definition) if leads else contextlib.nullcontext():
                if leads:
                    clear_partial(definition)
                device = _prepare_torch(config.experiment.threads)
                with tracker_of(definition, config, parent, device, track and leads) as tracker:
                    with _stopped_if_asked(watch):
                        yield Run(config, definition, tracker, device, watch, leads)
                    definition.require_unchanged(before)
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


def _prepare_torch(threads: int) -> "torch.device":
    """Set the thread count, which affects the last bits, and choose the device that SGLR_DEVICE requests."""
    import torch

    processes.keep_freed_memory()
    torch.set_num_threads(threads)
    return processes.device(os.environ.get("SGLR_DEVICE", "auto"))
