"""What is known about a trained model from the files around it: its params, its data, its results."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sglr import files
from sglr.models.checkpoint import CHECKPOINTS, SPEC, WEIGHTS


@dataclass(frozen=True)
class Provenance:
    """One checkpoint and what is on record about it; None where nothing is.

    ``folder``: holds model.safetensors and model.json. ``item``: method-seed. ``params``: values by key of params.yaml,
    as dvc.lock recorded them when the training finished. ``data``: the data's meta.json. ``results``: the evaluation's
    metrics.json, under ``checkpoint``. ``suite``: values of threat and evaluate that it used. ``source``: the
    source.json of a model from elsewhere.
    """

    folder: Path
    checkpoint: str
    item: str | None = None
    training: dict[str, Any] | None = None
    params: dict[str, Any] | None = None
    data: dict[str, Any] | None = None
    results: dict[str, Any] | None = None
    suite: dict[str, Any] | None = None
    source: dict[str, Any] | None = None


def gather(path: str | Path, checkpoint: str | None = None) -> Provenance:
    """Find a checkpoint and its records.

    path: a training folder with best/ and last/ (``checkpoint`` chooses; None: best, or last where there is no best),
    the folder of a checkpoint, its .safetensors file, or what ``sglr evaluate`` wrote. FileError when there is none.
    """
    folder = _checkpoint_folder(Path(path), checkpoint)
    trained, name = folder.parent, folder.name
    if trained.name == "model" and (trained.parent / "source.json").is_file():
        source = files.read_json(trained.parent / "source.json")
        return Provenance(
            folder,
            name,
            results=_json(trained.parent / "metrics.json"),
            suite=source,
            data=source["data"],
            source=source,
        )
    if trained.resolve().parent.name != "train":
        return Provenance(folder, name)
    artifacts, item = trained.resolve().parents[1], trained.resolve().name
    recorded = _locked(artifacts.parent / "dvc.lock", folder.resolve())
    return Provenance(
        folder,
        name,
        item=item,
        training=_json(trained / "metrics.json"),
        params=recorded.get(f"train@{item}"),
        data=_json(artifacts / "data" / "meta.json"),
        results=_json(artifacts / "evaluate" / item / "metrics.json"),
        suite=recorded.get(f"evaluate@{item}"),
    )


def _checkpoint_folder(path: Path, checkpoint: str | None) -> Path:
    if path.suffix == ".safetensors":
        path = path.parent
    candidates = [path]
    if not (path / WEIGHTS).is_file():
        roots = [path, path / "model"]
        candidates = [root / name for root in roots for name in ([checkpoint] if checkpoint else CHECKPOINTS)]
    elif checkpoint is not None:
        raise files.FileError(f"{path} is one checkpoint: leave out the choice of {checkpoint!r}.")
    for candidate in candidates:
        if (candidate / WEIGHTS).is_file() and (candidate / SPEC).is_file():
            return candidate
    raise files.FileError(
        f"there is no {'model' if checkpoint is None else checkpoint + ' model'} in {path}: name a training folder"
        " (artifacts/train/<method>-<seed>), the folder of a checkpoint, or what `sglr evaluate` wrote."
    )


def _json(path: Path) -> dict[str, Any] | None:
    return files.read_json(path) if path.is_file() else None


def _locked(path: Path, outputs: Path) -> dict[str, dict[str, Any]]:
    """Params of every stage by its name in dvc.lock; empty where there is none, or it is not about these outputs."""
    try:
        text = path.read_text(encoding="utf-8")
        stages = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))["stages"]
        recorded = {out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs", [])}
        known = recorded.get(outputs.relative_to(path.parent).as_posix())
        if known != files.dvc_digest(outputs):
            return {}
        return {name: stage.get("params", {}).get("params.yaml", {}) for name, stage in stages.items()}
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError):
        return {}
