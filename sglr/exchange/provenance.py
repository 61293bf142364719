"""The records of a trained model in the files around it: its params, its data, its results."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sglr import files
from sglr.config.names import CHECKPOINTS, SPEC, WEIGHTS
from sglr.config.sections import ThreatSettings
from sglr.models.checkpoint import saved_in
from sglr.project.items import Record, readable_records


@dataclass(frozen=True)
class Provenance:
    """One checkpoint and what is on record about it; None where nothing is.

    ``folder``: holds model.safetensors and model.json. ``item``: method-seed. ``params``: values by key of params.yaml,
    as dvc.lock recorded them when the training finished. ``data``: meta.json of the data it was trained on, which is on
    record while artifacts/data is what dvc.lock says it was then. ``results``: the evaluation's metrics.json, under
    ``checkpoint``; none where dvc.lock says that other weights were evaluated. ``suite``: values of threat and evaluate
    that it used. ``source``: the source.json of a model from elsewhere, whose ``data`` is what it was evaluated on.
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
    the folder of a checkpoint, its model.safetensors, or what ``sglr evaluate`` wrote. FileError when there is none.
    """
    # Whatever it is called from here: ".", a link, a name within the training's folder.
    folder = _checkpoint_folder(Path(path), checkpoint).resolve()
    trained, name = folder.parent, folder.name
    source = _json(trained.parent / "source.json") if trained.name == "model" else None
    if source is not None and _is_of_evaluate(source):
        return Provenance(
            folder,
            name,
            results=_json(trained.parent / "metrics.json"),
            suite=source,
            data=source["data"],
            source=source,
        )
    # The weights of a kept epoch lie one folder deeper, in an out of their own, and are not evaluated.
    kept = trained.name == "checkpoints"
    training_folder = trained.parent if kept else trained
    if training_folder.parent.name != "train":
        return Provenance(folder, name)
    artifacts, item = training_folder.parents[1], training_folder.name
    project = artifacts.parent
    known = readable_records(project)
    mine = _gave(known.get(f"train@{item}"), trained if kept else folder, project)
    training, evaluation = known.get(f"train@{item}") if mine else None, known.get(f"evaluate@{item}")
    evaluated = not kept and (evaluation is None or _took(evaluation, folder, project))
    return Provenance(
        folder,
        name,
        item=item,
        training=_json(training_folder / "metrics.json"),
        params=training.values if training else None,
        data=_json(artifacts / "data" / "meta.json") if _took(training, artifacts / "data", project) else None,
        results=_json(artifacts / "evaluate" / item / "metrics.json") if evaluated else None,
        suite=evaluation.values if evaluation and evaluated else None,
    )


def _is_of_evaluate(source: Any) -> bool:
    """Whether a source.json has what ``sglr evaluate`` writes, as far as it is read; one from elsewhere may not."""
    try:
        ThreatSettings.model_validate(source["threat"])
        texts = [source["data"]["source"]["name"], *(source["weights"][name] for name in ("file", "sha256"))]
        texts += [*source["notes"], *(source["data"].get("classes") or ())]
        whole = all(isinstance(text, str) and files.is_printable(text) for text in texts)
        return whole and isinstance(source["data"]["sizes"]["test"], int) and isinstance(source["evaluate"], dict)
    except (LookupError, TypeError, AttributeError, ValueError):
        return False


def _checkpoint_folder(path: Path, checkpoint: str | None) -> Path:
    if path.name == WEIGHTS:
        path = path.parent
    candidates = [path]
    if not (path / WEIGHTS).is_file():
        names = [checkpoint] if checkpoint else CHECKPOINTS
        candidates = [*saved_in(path, names), *saved_in(path / "model", names)]
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
    if not path.is_file():
        return None
    found = files.read_json(path)
    if not isinstance(found, dict):
        raise files.FileError(f"cannot read {path}: it holds no record; what makes it must run again.")
    return found


def _took(entry: Record | None, path: Path, project: Path) -> bool:
    """Whether what is at ``path`` now is what an item of the project took as its input there."""
    return entry is not None and _is(entry.deps, path, project)


def _gave(entry: Record | None, path: Path, project: Path) -> bool:
    """Whether what is at ``path`` now is what an item of the project left there."""
    return entry is not None and _is(entry.outs, path, project)


def _is(known: dict[str, str | None], path: Path, project: Path) -> bool:
    digest = known.get(path.relative_to(project).as_posix())
    return digest is not None and digest == files.dvc_digest(path)
