"""Trained models in MLflow's model registry: a traced graph with signature and example, loadable without pickle."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sglr import files
from sglr.config.names import CHECKPOINTS, SPEC, WEIGHTS
from sglr.tracking.server import connect
from sglr.tracking.settings import TrackingError, address, prepare_environment, shown

# Images in the input example; a graph traced with one would take no other number.
_EXAMPLES = 2


def register(root: Path, experiment: str, item: str, checkpoint: str | None = None, name: str | None = None) -> str:
    """Register ``artifacts/train/<item>/<checkpoint>`` as a new version of the model ``name``; returns which.

    ``item``: method-seed, or the path of that folder. ``checkpoint`` None: best, or last where there is no best.
    ``name`` None: <experiment>-<method>.

    The version belongs to the training run with these weights, or to a run of its own where the database has none. Tags
    are those of ``tags_of``. Raises FileError when the model is missing, TrackingError when MLflow is, or when it
    refuses.
    """
    from sglr.models.checkpoint import saved_in  # loads torch

    trainings, path = root / "artifacts" / "train", Path(item)
    if path.resolve().parent == trainings.resolve():
        item = path.name
    elif len(path.parts) != 1:
        raise files.FileError(f"{item} is not a training folder of this project (artifacts/train/<method>-<seed>).")
    folders = saved_in(trainings / item, [checkpoint] if checkpoint else CHECKPOINTS)
    if not folders:
        where = trainings / item / (checkpoint or "")
        raise files.FileError(f"there is no model in {where}; `sglr status` says what has been trained.")
    name = name or f"{experiment}-{item.rsplit('-', 1)[0]}"
    prepare_environment()
    try:
        import mlflow
    except ImportError:
        raise TrackingError("registering needs MLflow: pip install mlflow") from None
    try:
        return _register(mlflow, root, experiment, item, folders[0], name)
    except mlflow.exceptions.MlflowException as error:
        raise TrackingError(f"MLflow at {shown(address(root))} refuses: {shown(error)}") from None


def _register(mlflow: Any, root: Path, experiment: str, item: str, folder: Path, name: str) -> str:
    import torch

    from sglr import models

    model = models.load_model(folder)
    spec = files.read_json(folder / SPEC)
    example = torch.rand(_EXAMPLES, *spec["shape"], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = model(example)
    mlflow.set_tracking_uri(address(root))
    mlflow.set_registry_uri(address(root))
    server = connect(root)
    # Runs are tagged with the md5 of their last weights.
    last = files.md5(folder.parent / "last" / WEIGHTS)
    method, _, seed = item.rpartition("-")
    told = tags_of(folder, experiment, item)  # before anything is registered: a result may be unreadable
    experiment_id = server.experiment(experiment)
    tags = {"stage": "train", "method": method, "seed": seed, "weights_md5": last}
    run = server.newest(experiment_id, tags, "FINISHED")
    chosen = {"run_id": run} if run else {"experiment_id": experiment_id, "run_name": f"register@{item}"}
    with _quiet(), mlflow.start_run(**chosen):
        info = mlflow.pytorch.log_model(
            model,
            name=f"model-{folder.name}",
            registered_model_name=name,
            signature=mlflow.models.infer_signature(example.numpy(), logits.numpy()),
            input_example=example.numpy(),
            serialization_format="pt2",
            pip_requirements=[f"torch=={torch.__version__.split('+')[0]}"],
        )
    version = info.registered_model_version
    client = mlflow.MlflowClient()
    for key, value in told.items():
        client.set_model_version_tag(name, version, key, value)
    return f"{name}, version {version}: mlflow.pytorch.load_model('models:/{name}/{version}')"


def tags_of(folder: Path, experiment: str, item: str) -> dict[str, str]:
    """Experiment, item, checkpoint, the weights' MD5, and the evaluation's results, but where dvc.lock says that other
    weights were evaluated."""
    from sglr.exchange.provenance import gather

    weights = files.md5(folder / WEIGHTS)
    measured = (gather(folder).results or {}).get(folder.name, {})
    tags = {"experiment": experiment, "item": item, "checkpoint": folder.name, "md5": weights}
    return tags | {f"test/{attack}": f"{accuracy:.4f}" for attack, accuracy in measured.items()}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide MLflow's remarks on model logging, which name its own defaults, from the user of one command."""
    logger = logging.getLogger("mlflow")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
