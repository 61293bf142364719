"""What a training leaves, and what is kept for it until then."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sglr.models.checkpoint import unwrap
from sglr.random import derive, seed_torch
from sglr.training.errors import TrainingError
from sglr.training.learner import Learner
from sglr.training.plan import Plan
from sglr.training.snapshots import Snapshots
from sglr.training.state import LoopState, Row, capture, copied


@dataclass
class TrainingResult:
    """What a training leaves. Weights are state dicts on the CPU."""

    last: dict[str, Tensor]
    best: dict[str, Tensor] | None
    best_epoch: int | None
    kept: dict[int, dict[str, Tensor]]
    history: list[Row]
    refined: Tensor
    """The refined labels (n, C) after the last epoch."""
    labels: dict[str, dict[str, Any]]
    """State of the label policy with each of these weights: "last", "best", "10" (a kept epoch)."""
    trace: dict[str, Tensor]
    state: dict[str, Any] | None
    """Everything a continuation needs (``fit(..., continue_from=state)``); None where the plan's epochs are over."""


class KeptEpochs:
    """Weights and label policy after each of ``train.keep_epochs``: beside the snapshots, where there are some, so that
    they outlive the process, else in memory."""

    def __init__(self, epochs: tuple[int, ...], snapshots: Snapshots | None, writes: bool) -> None:
        self._epochs, self._snapshots, self._writes = epochs, snapshots, writes
        self._in_memory: dict[int, dict[str, Any]] = {}

    def keep(self, epoch: int, evaluated: nn.Module, learner: Learner) -> None:
        """Keep what is there after an epoch, if it is one of them; of a team's processes one writes."""
        if epoch not in self._epochs:
            return
        state = copied({"model": evaluated.state_dict(), "labels": learner.labels.state_dict()})
        if self._snapshots is None:
            self._in_memory[epoch] = state
        elif self._writes:
            self._snapshots.keep(epoch, state)

    def before(self, epoch: int) -> dict[int, dict[str, Any]]:
        """What was kept of the epochs before this one; FileError where a file of them is missing or damaged."""
        past = [kept for kept in self._epochs if kept < epoch]
        return self._snapshots.kept(past) if self._snapshots else {kept: self._in_memory[kept] for kept in past}


def evaluated_model(learner: Learner) -> nn.Module:
    """The model that is validated and saved; TrainingError where the weight policy gives another kind of model."""
    found = unwrap(learner.weights.evaluated(learner.model))
    if found.state_dict().keys() != learner.model.state_dict().keys():
        raise TrainingError(
            f"{type(found).__name__}, which the weight policy gives to evaluate, has not the names of the model's"
            " weights: it must be a copy of the model, or torch's own wrapper around one (AveragedModel)"
        )
    return found


def refined_labels(plan: Plan, learner: Learner, epoch: int, index: Tensor) -> Tensor:
    """The refined labels (N, C) of the examples ``index`` after an epoch, whatever was drawn before."""
    seed_torch(derive(plan.seed, "refined", epoch), index.device)
    return learner.labels.refined(epoch, index)


def result(
    plan: Plan, learner: Learner, progress: LoopState, keeping: KeptEpochs, every_example: Tensor, traced: Tensor
) -> TrainingResult:
    """What a training whose epochs are over leaves; ``every_example``, ``traced``: positions of training examples."""
    kept = keeping.before(progress.epoch)
    labels = {"last": copied(learner.labels.state_dict())} | {str(epoch): kept[epoch]["labels"] for epoch in kept}
    if progress.best is not None:
        labels["best"] = progress.best_labels
    refined = refined_labels(plan, learner, progress.epoch - 1, every_example).cpu()
    return TrainingResult(
        last=copied(evaluated_model(learner).state_dict()),
        best=progress.best,
        best_epoch=progress.best_epoch,
        kept={epoch: state["model"] for epoch, state in kept.items()},
        history=progress.history,
        refined=refined,
        labels=labels,
        trace={"index": traced, "p": torch.stack(progress.trace) if progress.trace else refined[traced][None][:0]},
        state=copy.deepcopy(capture(learner, progress)) if plan.until < plan.epochs else None,
    )
