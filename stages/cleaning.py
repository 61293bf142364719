"""What earlier runs left, and when it may go: snapshots, files under way, folders of what is no longer listed."""

import contextlib
import shutil
import time
from pathlib import Path

import click

from sglr import files
from sglr.config import Config
from sglr.project.items import FINISHED, readable_records
from stages.pipeline import ARTIFACTS, OWN, Definition, all_snapshots, home, lock_of

# A training whose params were changed while it was interrupted leaves its snapshots: they would fit if these came back.
_ABANDONED_DAYS = 30


def prune_snapshots(keep: Path | None = None) -> None:
    """Remove the snapshots of items whose outs DVC has committed, and those abandoned for weeks but for ``keep``,
    from which an item is about to go on."""
    finished = list(all_snapshots().glob(f"*/*/{FINISHED}"))
    ran = readable_records(Path()) if finished else {}
    for path in finished:
        # Damaged, or removed by another stage at this moment: these snapshots wait until they are old.
        with contextlib.suppress(files.FileError, LookupError, TypeError):
            done = files.read_json(path)
            if ran[done["item"]].outs[done["path"]] == done["md5"]:
                _remove(path.parent)
    oldest = time.time() - _ABANDONED_DAYS * 86400
    for folder in set(all_snapshots().glob("*/*")) - {keep}:
        with contextlib.suppress(OSError):
            if max(path.stat().st_mtime for path in [folder, *folder.rglob("*")]) < oldest:
                _remove(folder)
    for lock in (home() / OWN / "locks").glob("*/*.lock"):
        if not (unused := all_snapshots() / lock.parent.name / lock.stem).exists():
            _remove(unused)


def _remove(snapshots: Path) -> None:
    """Remove snapshots, unless a process works with them."""
    with contextlib.suppress(files.FileError), files.lock(lock_of(snapshots)):
        shutil.rmtree(snapshots, ignore_errors=True)
        lock_of(snapshots).unlink(missing_ok=True)


def clear_partial(definition: Definition) -> None:
    """Remove files that were under way when an earlier run of an item was killed; the caller holds its lock."""
    if definition.stage == "check":  # its one file lies beside the folders of others
        found = ARTIFACTS.glob(f".check.txt*{files.PARTIAL}")
    else:
        folder = "data" if definition.stage == "prepare" else definition.stage
        found = (ARTIFACTS / folder / definition.item.partition("@")[2]).rglob(f".*{files.PARTIAL}")
    for left in list(found):
        left.unlink(missing_ok=True)


def remove_unlisted_items(config: Config) -> None:
    """Remove the folders of methods and seeds no longer listed; DVC's cache keeps those that ran here. Others' stay."""
    listed = {f"{method}-{seed}" for method in config.experiment.methods for seed in config.experiment.seeds}
    outs = [out for record in readable_records(Path()).values() for out in record.outs]
    known = {folder for out in outs for folder in Path(out).parents}
    for name in ("train", "evaluate", "analyze"):
        for folder in (ARTIFACTS / name).glob("*"):
            if folder.is_dir() and folder.name not in listed and folder in known:
                shutil.rmtree(folder)
                click.echo(
                    f"removed {folder}, which params.yaml no longer lists (DVC's cache keeps what ran here)", err=True
                )
