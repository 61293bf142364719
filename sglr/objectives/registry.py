"""The interface of an objective."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn

from sglr.attacks.losses import Loss, cross_entropy
from sglr.config import Options, Registry
from sglr.objectives.inner import InnerMaximisation

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


class Objective(ABC):
    """One training loss.

    A model that it is given may be folded, compiled, or called with other weights: call it, and do not look inside
    (``model.features``, ``model.head``).
    """

    attacks = True
    """Whether adversarial examples are made at all."""
    forwards_natural = False
    """Whether the natural images are forwarded too, in train mode: label policies then use those logits."""
    targets_meet: Literal["adversarial", "natural"] | None = None
    """Which logits the cross-entropy compares with the targets; None: not told, and refinement cannot warn of it."""
    forwards_for_attack: int | None = None
    """Forwards that ``attack_loss`` makes, and an attack of its own beside gradients; None: not told, and the report
    counts no passes of its methods."""

    def attack_loss(self, model: nn.Module, x: Tensor) -> Loss:
        """What the attack maximises, a function (logits, y) -> (N,); the model is in the attack's mode."""
        return cross_entropy

    def attack(self, inner: InnerMaximisation) -> Tensor:
        """The adversarial images (N, C, H, W) in [0, 1] that are trained on, float32, new ones.

        Here by PGD, as ``train.attack`` says; an attack of an objective's own overrides it.
        """
        return inner.pgd()

    @property
    def own_attack(self) -> bool:
        """Whether there are adversarial images, made otherwise than ``train.attack`` says."""
        return self.attacks and type(self).attack is not Objective.attack

    def gradients_for_attack(self, steps: int) -> float | None:
        """Gradients to each image that ``attack`` takes where ``train.attack`` has so many steps, by default as many.

        None: not told, as for an attack of its own unless it says so; the report counts no passes of its methods.
        """
        return None if self.own_attack else steps if self.attacks else 0

    @abstractmethod
    def forward(self, model: nn.Module, x: Tensor, x_adv: Tensor) -> Outputs:
        """The forwards the loss needs, in the mode the model is in (train)."""

    @abstractmethod
    def loss(self, outputs: Outputs, targets: Tensor, y: Tensor, weights: Tensor | None = None) -> Tensor:
        """Scalar mean loss.

        targets: (N, C) on the simplex; y: the hard given labels (N,); weights: (N,) of the cross-entropy term.
        """

    def total(
        self, outputs: Outputs, targets: Tensor, y: Tensor, weights: Tensor | None = None,
        penalty: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:  # fmt: skip
        """``loss``, and the mean of a label policy's penalty, a function of logits (N, C) -> (N,), if it has one."""
        loss = self.loss(outputs, targets, y, weights)
        return loss if penalty is None else loss + penalty(self.penalised(outputs)).mean()

    def penalised(self, outputs: Outputs) -> Tensor:
        """The logits (N, C) on which the loss takes a label policy's penalty; the attack takes it on its own."""
        return outputs.main


class ObjectiveOptions(Options):
    """Base of objective options."""

    needs_random_start: ClassVar[bool] = False
    """Whether what the attack maximises has no gradient at the natural image."""

    def build(self) -> Objective:
        """The objective."""
        raise NotImplementedError

    def same_until(self, epoch: int) -> bool:
        """Whether the epochs up to ``epoch`` equal plain adversarial training, so that a warm-up can be shared."""
        return False
