"""The state of a training: what a snapshot holds, and how training goes on from it."""

import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from sglr.training.learner import Learner

Row = dict[str, Any]


@dataclass
class LoopState:
    """The loop's own state, beside the learner's: how far it is, and what it remembers. In snapshots "progress"."""

    epoch: int = 1
    step: int = 0
    loss: Tensor | float = 0.0
    bad_step: Tensor | int = -1
    predicted: Tensor | None = None
    best: dict[str, Tensor] | None = None
    best_labels: dict[str, Any] = field(default_factory=dict)
    best_epoch: int | None = None
    best_score: float = -1.0
    history: list[Row] = field(default_factory=list)
    trace: list[Tensor] = field(default_factory=list)


def capture(learner: Learner, progress: LoopState) -> dict[str, Any]:
    """Everything a continuation needs. Tensors are the live ones."""
    return {
        "model": learner.model.state_dict(),
        "optimizer": learner.optimizer.state_dict(),
        "labels": learner.labels.state_dict(),
        "weights": learner.weights.state_dict(),
        "progress": dict(progress.__dict__),
    }


def restore(learner: Learner, state: dict[str, Any], device: torch.device) -> LoopState:
    """Put a learner into a captured state, of whatever device, and return the loop's that goes with it."""
    state = copy.deepcopy(state)  # the optimiser and the history would go on writing into the caller's
    learner.model.load_state_dict(state["model"])
    load_optimizer(learner.optimizer, state["optimizer"])
    if state["labels"]:
        learner.labels.load_state_dict(state["labels"])
    if state["weights"]:
        learner.weights.load_state_dict(state["weights"])
    values = state["progress"]
    for key in ("loss", "bad_step", "predicted"):
        if isinstance(values[key], Tensor):
            values[key] = values[key].to(device)
    progress = LoopState(**values)
    if not state["labels"]:
        # From a shared warm-up, which had no need of this policy's: as it begins.
        progress.best_labels = copied(learner.labels.state_dict())
    return progress


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Take over a state, however its tensors lie in memory and whatever device it comes from.

    A fused step wants momentum to lie as its weight does; and whether to take one is up to this device. ValueError,
    torch's own, for the state of another optimizer.
    """
    fused = [group["fused"] for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, own in zip(optimizer.param_groups, fused, strict=True):
        group["fused"] = own
    for weight, of_weight in optimizer.state.items():
        for name, value in of_weight.items():
            if isinstance(value, Tensor) and value.shape == weight.shape:
                of_weight[name] = torch.empty_like(weight).copy_(value)


def copied(state: Any) -> Any:
    """A copy of nested state, its tensors on the CPU."""
    if isinstance(state, Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, dict):
        return {key: copied(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(map(copied, state))
    return state


def finite(model: nn.Module) -> set[str]:
    """Names of the weights and buffers of 16 bits and more without NaN and infinity; waits for the device."""
    state = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}  # or extra state
    # Torch before 2.12 does not ask this of 8 bits.
    asked = {name: value for name, value in state.items() if value.dtype.itemsize > 1}
    whole = torch.stack([value.isfinite().all() for value in asked.values()]).cpu().tolist() if asked else []
    return {name for name, holds in zip(asked, whole, strict=True) if holds}
