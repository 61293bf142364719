"""The inner maximisation of one training step, as an objective is given it."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from sglr.attacks.losses import Loss
from sglr.attacks.pgd import ascend
from sglr.threat import Threat


@dataclass(frozen=True)
class InnerMaximisation:
    """What to maximise and within which ball, for the images that one process has of a batch.

    Several processes share a batch, and a training may be resumed: what becomes of an image must depend neither on the
    others nor on earlier steps.
    """

    model: nn.Module
    """In the attack's mode; may be folded, compiled, and computed in bfloat16. Call it, and do not look inside."""
    x: Tensor
    """Natural images (N, C, H, W) in [0, 1], augmented: those that are trained on, not to be changed."""
    y: Tensor
    """Given labels (N,)."""
    loss: Loss
    """(logits, y) -> (N,): the objective's ``attack_loss``, of a label policy's targets in place of y and with its
    penalty, if it has such."""
    threat: Threat
    step_size: float
    """In units of pixel values; it, ``steps`` and ``start_at_random`` are those of ``train.attack``."""
    steps: int
    start_at_random: bool
    epoch: int
    """Counted from 1, of ``epochs``."""
    epochs: int
    random_start: Callable[[Threat], Tensor]
    """Random points (N, C, H, W) of any threat's ball around x, the same in however many processes; each call within a
    step begins with the same random numbers."""

    def start(self) -> Tensor:
        """Where ``train.attack`` lets an attack start: a random point of the ball, or x."""
        return self.random_start(self.threat) if self.start_at_random else self.x

    def pgd(self) -> Tensor:
        """The adversarial images of PGD with the settings of ``train.attack``."""
        return ascend(
            self.model, self.x, self.y, threat=self.threat, step_size=self.step_size, steps=self.steps, loss=self.loss,
            start=self.start(),
        )  # fmt: skip
