"""The interface of a label policy."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from torch import Tensor

from sglr.config import Options, Registry
from sglr.objectives import ObjectiveOptions, Outputs

REGISTRY = Registry("label policy")

BatchNormMode = Literal["train", "eval"]


@dataclass(frozen=True)
class Step:
    """What a policy may look at in one training step."""

    epoch: int
    """Counted from 1."""
    index: Tensor
    """int64 (N,): positions of the batch's examples in the training set."""
    outputs: Outputs
    """The forwards the objective made."""
    natural: Callable[[BatchNormMode], Tensor]
    """Natural logits (N, C) without gradient: those of the objective where it made some, else a forward in the mode asked for."""


class LabelPolicy(Protocol):
    """Targets for every training example."""

    def targets(self, step: Step) -> Tensor:
        """Targets (N, C) for a batch; called once per step, after the objective's forwards."""
        ...

    def table(self) -> Tensor:
        """The targets of all examples (n, C) as they stand now, each row on the simplex."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore ``state_dict``; ValueError when it does not fit."""
        ...


class LabelOptions(Options):
    """Base of label policy options."""

    def build(self, given: Tensor, num_classes: int, epochs: int) -> LabelPolicy:
        """The policy for given labels (n,) int64, on their device, in a run of so many epochs."""
        raise NotImplementedError

    def check_objective(self, objective: ObjectiveOptions) -> None:
        """ValueError when the policy does not go with an objective."""

    def same_until(self, epoch: int) -> bool:
        """Whether the epochs up to ``epoch`` equal hard labels, so that a warm-up can be shared."""
        return False
