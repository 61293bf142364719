"""The interface of a weight policy."""

import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from sglr.config import Options, Registry

REGISTRY = Registry("weight policy")

Gradients = Callable[[nn.Module, Sequence[Tensor]], tuple[Tensor, ...]]
"""(copy of the model, weights of it) -> gradients of the loss with respect to these weights."""


class WeightPolicy:
    """Training-loop hooks; the defaults do nothing."""

    def perturbed(self, model: nn.Module, epoch: int, gradients: Gradients) -> contextlib.AbstractContextManager[None]:
        """Around the forwards and the backward pass of a step: the weights may be moved and are put back at its end.

        ``gradients`` gives those of the step's loss on a copy of the model, with the targets as they stand before it.
        """
        return contextlib.nullcontext()

    def after_step(self, model: nn.Module, epoch: int) -> None:
        """Called after each optimiser step."""

    def after_epoch(self, model: nn.Module, epoch: int, images: Callable[[], Iterable[Tensor]]) -> None:
        """Called at the end of each epoch; ``images`` gives the training images in batches, in order."""

    def evaluated(self, model: nn.Module) -> nn.Module:
        """The model that is validated, selected and saved: the live one or an average of it, perhaps in torch's wrapper
        (``AveragedModel``)."""
        return model

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore ``state_dict``, whose tensors may lie on the CPU."""


class WeightOptions(Options):
    """Base of weight policy options."""

    trains_saved_weights: ClassVar[bool] = False
    """Whether a step attacks and trains the weights that are validated and saved. Where it does not, the report leaves
    out accuracies of training steps: they belong to another network than the saved one."""

    averages: ClassVar[bool] = False
    """Whether ``evaluated`` gives another model than the live one; ``several`` takes one such policy at most."""

    def build(self, model: nn.Module) -> WeightPolicy:
        """The policy for a model."""
        raise NotImplementedError

    def parts(self) -> "tuple[WeightOptions, ...]":
        """The policies that this one is made of: itself, unless it puts others together."""
        return (self,)

    def added_passes(self, own: int, epochs: int) -> tuple[float, float] | None:
        """Forward and backward passes of an example that the policy adds to an epoch, mean over the epochs.

        ``own``: those that the objective's loss makes. None: not told, and the report counts no passes of its methods.
        """
        return None

    def same_until(self, epoch: int) -> bool:
        """Whether the epochs up to ``epoch`` are trained as without the policy, so that a warm-up can be shared."""
        return False


def share_of(epochs: int, start_epoch: int) -> float:
    """The share of so many epochs that are not before ``start_epoch``."""
    return max(0, epochs - start_epoch + 1) / epochs
