"""The MLflow run of one item: where it belongs, and what it says of the item from the start."""

import contextlib
import subprocess
from typing import TYPE_CHECKING

import click

from sglr import files, tracking
from sglr.config import Config
from sglr.config.names import WEIGHTS
from stages.pipeline import ARTIFACTS, Definition, dvc_copy, home

if TYPE_CHECKING:
    import torch


def tracker_of(
    definition: Definition, config: Config, parent: str | None, device: "torch.device", track: bool
) -> contextlib.AbstractContextManager[tracking.Tracker]:
    """What tracks an item; nothing unless ``track``. ``parent`` as ``stages.runtime.stage`` takes it."""
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
        copy=dvc_copy(),
        experiment=config.experiment.name,
        stage=definition.stage,
        item=definition.item,
        tags={**tags, "params_hash": definition.params_hash, "git_commit": _git_commit()},
        params=tracking.flatten(definition.values),
        key=definition.fingerprint,
        parent=query,
        record={"device": str(device), "threads": config.experiment.threads},
    )


def _git_commit() -> str:
    try:
        asked = ["git", "rev-parse", "--quiet", "--verify", "HEAD"]
        found = subprocess.run(asked, capture_output=True, text=True, check=False)
    except OSError:  # no git on this machine
        return "unknown"
    commit, said = found.stdout.strip(), " ".join(found.stderr.split())
    if not commit and said and "not a git repository" not in said:  # such as one that git takes for another user's
        click.echo(f"recorded without the commit, which git does not tell: {said}", err=True)
    return commit or "unknown"
