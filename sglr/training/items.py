"""The items of the study that train: one warm-up per seed, one training per method and seed."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sglr import files, models
from sglr.config import Config
from sglr.data import Prepared, Split
from sglr.random import derive
from sglr.training.loop import Row, Trained, fit
from sglr.training.plan import Plan

CONTINUATION = "continuation.state"


def warm_up(config: Config, seed: int, data: Prepared, folder: Path, *, device: torch.device, **loop: Any) -> None:
    """Run the warm-up of a seed and write its folder: ``model/``, ``history.csv``, ``metrics.json``, and, after an
    adversarial warm-up, everything training needs to continue it (``continuation.state``, otherwise empty).

    ``loop``: keywords of ``fit`` (snapshots, on_epoch, should_stop).
    """
    model = initial_model(config, seed, data, device)
    train, validation = _splits(data, seed, device)
    plan = Plan.warm_up(config, seed)
    adversarial = config.warmup.objective == "adversarial"
    # A natural warm-up's epochs end at 0, an adversarial one's are the first of training itself.
    shift = 0 if adversarial else plan.until
    if "on_epoch" in loop:
        on_epoch = loop.pop("on_epoch")
        loop["on_epoch"] = lambda row: on_epoch({**row, "epoch": row["epoch"] - shift})
    result = fit(plan, model, train, validation, title=f"warmup {seed}", **loop)
    models.save(model, folder / "model", _spec(config, data))
    files.save_state(folder / CONTINUATION, result.state if adversarial else {})
    rows = [{"phase": "warmup", **row, "epoch": row["epoch"] - shift} for row in result.history]
    files.write_rows(folder / "history.csv", rows or [{"phase": None, "epoch": None}])
    files.write_json(folder / "metrics.json", {"epochs": len(rows), "last": _numbers(rows[-1]) if rows else None})


def train(
    config: Config,
    method: str,
    seed: int,
    data: Prepared,
    warmup: Path,
    folder: Path,
    *,
    device: torch.device,
    **loop: Any,
) -> None:
    """Train a method and write its folder (see the file contract in docs/reference): ``best/``, ``last/``,
    ``checkpoints/<epoch>/``, ``labels.npz``, ``labels_trace.npz``, ``history.csv``, ``metrics.json``.

    ``warmup``: the folder ``warm_up`` wrote for this seed; ``loop``: keywords of ``fit``.
    """
    chosen = config.methods[method]
    model = initial_model(config, seed, data, device)
    continue_from, prepended = None, []
    if chosen.start == "warmup":
        prepended = [row for row in files.read_rows(warmup / "history.csv") if row["phase"]]
        continue_from = files.load_state(warmup / CONTINUATION) or None
        if continue_from is None:
            model.load_state_dict(models.load_model(warmup / "model").state_dict())
    splits = _splits(data, seed, device)
    plan = Plan.training(config, chosen, seed)
    result = fit(plan, model, *splits, continue_from=continue_from, title=f"train {method}-{seed}", **loop)
    if continue_from is not None:
        prepended = []  # its epochs are in the result's own history
    shared = config.warmup.epochs if continue_from is not None else 0
    history = prepended + [{"phase": "warmup" if row["epoch"] <= shared else "train", **row} for row in result.history]
    _write(result, history, model, _spec(config, data), splits[0], folder)


def initial_model(config: Config, seed: int, data: Prepared, device: torch.device) -> nn.Module:
    """The untrained model of a seed; the same weights for every method."""
    return models.build(
        config.model, num_classes=data.num_classes, shape=data.shape, generator_seed=derive(seed, "init")
    ).to(device)


def _splits(data: Prepared, seed: int, device: torch.device) -> tuple[Split, Split | None]:
    validation = data.validation(device)
    return data.train(seed, device), validation if len(validation) else None


def _spec(config: Config, data: Prepared) -> dict[str, Any]:
    return models.spec(config.model, num_classes=data.num_classes, shape=data.shape)


def _write(
    result: Trained, history: list[Row], model: nn.Module, spec: dict[str, Any], train: Split, folder: Path
) -> None:
    checkpoints = {"last": result.last} | {f"checkpoints/{epoch}": weights for epoch, weights in result.kept.items()}
    if result.best is not None:
        checkpoints["best"] = result.best
    for name in ("best", "checkpoints"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name, weights in checkpoints.items():
        model.load_state_dict(weights)
        models.save(model, folder / name, spec)
    given, true = train.given.cpu().numpy(), train.true.cpu().numpy()
    index = result.trace["index"].numpy()
    own = [row for row in history if row["epoch"] >= 1]
    files.write_arrays(folder / "labels.npz", {"p": result.targets.numpy(), "given": given, "true": true})
    files.write_arrays(
        folder / "labels_trace.npz",
        {
            "index": index,
            "epochs": np.array([row["epoch"] for row in own]),
            "p": result.trace["p"].numpy(),
            "given": given[index],
            "true": true[index],
        },
    )
    files.write_rows(folder / "history.csv", history)
    best = next((row for row in own if row["epoch"] == result.best_epoch), None)
    files.write_json(
        folder / "metrics.json",
        {
            "best_epoch": result.best_epoch,
            "epochs": len(own),
            "best": _numbers(best) if best else None,
            "last": _numbers(history[-1]),
        },
    )


def _numbers(row: Row) -> Row:
    """The measured numbers of a history row."""
    return {key: value for key, value in row.items() if key not in ("phase", "epoch") and value is not None}
