"""The interface of a label policy."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sglr.config import Options, Registry
from sglr.config.fields import BatchNormMode
from sglr.objectives import Objective, ObjectiveOptions, Outputs

REGISTRY = Registry("label policy")

Penalty = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What a policy may look at before a batch is attacked."""

    epoch: int
    """Counted from 1."""
    progress: float
    """The share of the training's steps that are done, from 0 to below 1."""
    index: Tensor
    """int64 (N,): positions of the batch's examples in the training set."""
    natural: Callable[[BatchNormMode], Tensor]
    """Natural logits (N, C) without gradient, of the live weights: the objective's if it made some, else a forward in
    the mode asked for."""
    averaged: Callable[[], Tensor]
    """Natural logits (N, C) without gradient, in eval mode, of the weights that the method saves: their average where
    its weight policy is one, else the live ones."""


@dataclass(frozen=True, kw_only=True)
class Step(Batch):
    """What a policy may look at in one training step, after the objective's forwards."""

    outputs: Outputs
    """The forwards the objective made, detached."""
    images: Callable[[], tuple[Tensor, Tensor]]
    """The batch's images (N, C, H, W), natural and adversarial, as they were forwarded: augmented, and the same where
    nothing is attacked. For policies that show them to another network."""


@dataclass(frozen=True)
class NaturalForward:
    """What a policy says of the natural logits it asks for, once in each of its steps: of the live weights or, in eval
    mode, of averaged ones."""

    start_epoch: int | None
    """The first epoch with such steps, counted from 1; None: it never asks."""
    bn: BatchNormMode = "train"
    """The mode it asks for."""
    before_attack: bool = False
    """Whether it asks in ``before_attack``, when the objective has forwarded nothing yet."""

    def share_of(self, epochs: int) -> float:
        """The share of so many epochs that have such steps."""
        return 0.0 if self.start_epoch is None else max(0, epochs - self.start_epoch + 1) / epochs

    def is_added_to(self, objective: Objective) -> bool:
        """Whether it is one more forward than the objective makes, and not the objective's own looked at again."""
        return self.start_epoch is not None and (self.before_attack or not objective.forwards_natural)


NEVER = NaturalForward(None)


class LabelPolicy(ABC):
    """Targets for every training example. The loop calls the hooks of a step in the order they stand here."""

    def before_attack(self, batch: Batch) -> None:  # noqa: B027 (most policies have nothing to do here)
        """See the batch before it is attacked."""

    def attack_targets(self, epoch: int, index: Tensor) -> Tensor | None:
        """The targets (N, C) that the attack leads away from; None: the given labels.

        They take the labels' place in the objective's ``attack_loss``, which may not look at them (`trades`).
        """
        return None

    def penalty(self, epoch: int, index: Tensor) -> Penalty | None:
        """A function of logits (N, C) -> (N,) that is added to the loss and to what the attack maximises."""
        return None

    @abstractmethod
    def targets(self, epoch: int, index: Tensor) -> Tensor:
        """The targets (N, C) that these examples have in an epoch, each row on the simplex; nothing is updated.

        Also asked for all examples at the end of an epoch, and for single ones by the analysis.
        """

    def refined(self, epoch: int, index: Tensor) -> Tensor:
        """The labels (N, C) that the policy has come to believe, each row on the simplex.

        They are kept as the refined labels, and described in history and report. By default the targets, which may be
        mixed with the given labels.
        """
        return self.targets(epoch, index)

    def update(self, step: Step) -> Tensor:
        """Update the state from a step's predictions and return the batch's targets (N, C).

        Called once per step, after the objective's forwards. By default nothing is updated.
        """
        return self.targets(step.epoch, step.index)

    def example_weights(self, epoch: int, index: Tensor) -> Tensor | None:
        """Weights (N,) of mean 1 for the cross-entropy term, from the state as it stands; None for equal ones."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027 (nor here)
        """Restore ``state_dict``, whose tensors may lie on the CPU; ValueError when it does not fit."""


def restore(table: Tensor, stored: Any) -> None:
    """Copy a stored table into one of the same shape; ValueError when it is none, or of another."""
    if not isinstance(stored, Tensor) or stored.shape != table.shape:
        found = f"of shape {tuple(stored.shape)}" if isinstance(stored, Tensor) else f"({type(stored).__name__})"
        raise ValueError(f"label table {found}, expected a tensor {tuple(table.shape)}")
    table.copy_(stored)


class LabelOptions(Options):
    """Base of label policy options."""

    def build(self, given: Tensor, num_classes: int, epochs: int) -> LabelPolicy:
        """The policy for given labels (n,) int64, on their device, in a run of so many epochs."""
        raise NotImplementedError

    def check_objective(self, objective: ObjectiveOptions) -> None:
        """ValueError when the policy does not go with an objective."""

    def natural_forward(self) -> NaturalForward | None:
        """When natural logits are asked for (``NEVER``, where they are not).

        What the report says of cost and of batch norm follows from it. None, where a policy does not say: the report
        then counts no passes of its methods.
        """
        return None

    def same_until(self, epoch: int) -> bool:
        """Whether the epochs up to ``epoch`` equal hard labels, so that a warm-up can be shared."""
        return False
