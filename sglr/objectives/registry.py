"""The interface of an objective, and the cross-entropy they share."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn
from torch.nn import functional as F

from sglr.config import Options, Registry

REGISTRY = Registry("objective")


@dataclass(frozen=True)
class Outputs:
    """Logits (N, C) of the forwards an objective made, with gradient; None for one it did not make."""

    adversarial: Tensor | None = None
    natural: Tensor | None = None

    @property
    def main(self) -> Tensor:
        """The adversarial logits, or the natural ones where there is no attack."""
        logits = self.natural if self.adversarial is None else self.adversarial
        assert logits is not None
        return logits


class Objective(Protocol):
    """One training loss."""

    attacks: bool
    """Whether adversarial examples are made at all."""

    def forward(self, model: nn.Module, x: Tensor, x_adv: Tensor) -> Outputs:
        """The forwards the loss needs, in the mode the model is in (train)."""
        ...

    def loss(self, outputs: Outputs, targets: Tensor, y: Tensor) -> Tensor:
        """Scalar mean loss from outputs, targets (N, C) on the simplex and the hard given labels y (N,)."""
        ...


class ObjectiveOptions(Options):
    """Base of objective options."""

    def build(self) -> Objective:
        """The objective."""
        raise NotImplementedError

    def same_until(self, epoch: int) -> bool:
        """Whether the epochs up to ``epoch`` equal plain adversarial training, so that a warm-up can be shared."""
        return False


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """-sum_c t_c log softmax(z)_c per example (N,), for targets (N, C) on the simplex."""
    return -(targets * F.log_softmax(logits, dim=1)).sum(1)
