"""The items of the study that train: one warm-up per seed, one training per method and seed."""

import contextlib
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sglr import files, models
from sglr.config import Config
from sglr.config.names import LABELS
from sglr.data import Prepared, Split, open_folder
from sglr.training.distributed import Team, together
from sglr.training.errors import Interrupted, TrainingError
from sglr.training.hooks import NO_HOOKS, Hooks
from sglr.training.loop import fit
from sglr.training.plan import Plan
from sglr.training.result import TrainingResult
from sglr.training.snapshots import Snapshots
from sglr.training.state import Row

CONTINUATION = "continuation.state"


def warm_up(
    config: Config, seed: int, data: Prepared, folder: Path, *, device: torch.device, nproc: int = 1,
    hooks: Hooks = NO_HOOKS,
) -> None:  # fmt: skip
    """Run the warm-up of a seed and write its folder: ``model/``, ``history.csv``, ``metrics.json``, and, after an
    adversarial warm-up, everything training needs to continue it (``continuation.state``, otherwise empty).

    ``nproc``: processes that share every batch, see ``distributed``; ``hooks``: as for ``fit``, of this process
    alone. Raises as ``fit`` does; ProcessError when one of several processes fails.
    """
    plan = Plan.warm_up(config, seed)
    adversarial = config.warmup.objective == "adversarial"
    # A natural warm-up's epochs end at 0, an adversarial one's are the first of training itself.
    shift = 0 if adversarial else plan.until
    shifted = dataclasses.replace(hooks, on_epoch=lambda row: hooks.on_epoch({**row, "epoch": row["epoch"] - shift}))
    item = _Job(config, plan, seed, data.folder, None, f"warmup {seed}")
    with together(nproc, device, _assist, item, _folder(hooks)) as (team, own):
        model, result, _ = item.fit(team, own, data, shifted)
    if not team.leads:
        return
    models.save(model, folder / "model", _spec(config, data))
    files.save_state(folder / CONTINUATION, result.state or {} if adversarial else {})
    rows = [{"phase": "warmup", **row, "epoch": row["epoch"] - shift} for row in result.history]
    files.write_rows(folder / "history.csv", rows or [{"phase": None, "epoch": None}])
    files.write_json(folder / "metrics.json", {"epochs": len(rows), "last": _numbers(rows[-1]) if rows else None})


def train(
    config: Config, method: str, seed: int, data: Prepared, warmup: Path, folder: Path, *, device: torch.device,
    nproc: int = 1, hooks: Hooks = NO_HOOKS,
) -> None:  # fmt: skip
    """Train a method and write its folder (see the file contract in docs/architecture.md): ``best/``, ``last/``,
    ``checkpoints/<epoch>/``, ``labels.npz``, ``labels.state``, ``labels_trace.npz``, ``history.csv``, ``metrics.json``.

    ``warmup``: the folder ``warm_up`` wrote for this seed; the rest as for ``warm_up``.
    """
    chosen = config.methods[method]
    start = warmup if chosen.start == "warmup" else None
    item = _Job(config, Plan.training(config, chosen, seed), seed, data.folder, start, f"train {method}-{seed}")
    with together(nproc, device, _assist, item, _folder(hooks)) as (team, own):
        model, result, continued = item.fit(team, own, data, hooks)
    if not team.leads:
        return
    prepended: list[Row] = []
    if start is not None and not continued:  # else its epochs are in the result's own history
        prepended = [row for row in files.read_rows(start / "history.csv") if row["phase"]]
    shared = config.warmup.epochs if continued else 0
    history = prepended + [{"phase": "warmup" if row["epoch"] <= shared else "train", **row} for row in result.history]
    _write(result, history, model, _spec(config, data), data.train(seed), folder)


@dataclass(frozen=True)
class _Job:
    """A training as each of its processes can make it."""

    config: Config
    plan: Plan
    seed: int
    data: Path
    warmup: Path | None
    title: str

    def fit(
        self, team: Team, device: torch.device, data: Prepared, hooks: Hooks
    ) -> tuple[nn.Module, TrainingResult, bool]:
        """The model, what training left, and whether it continued a shared warm-up."""
        model = initial_model(self.config, self.seed, data, device)
        continue_from = None
        if self.warmup is not None:
            continue_from = files.load_state(self.warmup / CONTINUATION) or None
            if continue_from is None:
                model.load_state_dict(models.load_model(self.warmup / "model").state_dict())
        validation = data.validation(self.seed, device)
        splits = data.train(self.seed, device), validation if len(validation) else None
        result = fit(self.plan, model, *splits, hooks=hooks, continue_from=continue_from, title=self.title, team=team)
        return model, result, continue_from is not None


def _assist(team: Team, device: torch.device, item: _Job, snapshots: Path | None) -> None:
    """What a process does that does not lead: the same, silently. Where the leader ends with an error, it just ends."""
    with contextlib.suppress(TrainingError, Interrupted):
        item.fit(team, device, open_folder(item.data), Hooks(Snapshots(snapshots) if snapshots else None))


def _folder(hooks: Hooks) -> Path | None:
    return hooks.snapshots.folder if hooks.snapshots else None


def initial_model(config: Config, seed: int, data: Prepared, device: torch.device) -> nn.Module:
    """The untrained model of a seed; the same weights for every method."""
    return models.initial(_spec(config, data), seed).to(device)


def _spec(config: Config, data: Prepared) -> dict[str, Any]:
    return models.spec(config.model, num_classes=data.num_classes, shape=data.shape)


def _write(
    result: TrainingResult, history: list[Row], model: nn.Module, spec: dict[str, Any], train: Split, folder: Path
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
    files.write_arrays(folder / "labels.npz", {"p": result.refined.numpy(), "given": given, "true": true})
    files.save_state(folder / LABELS, result.labels)
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
