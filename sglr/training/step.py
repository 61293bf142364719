"""One training step: attack, forwards, targets, loss, update.

Nothing in it waits for the device, but for torch's batch norm where several GPUs share its statistics.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from sglr.attacks import attack_mode
from sglr.config.fields import BatchNormMode
from sglr.labels import Batch, Step
from sglr.labels.registry import Penalty
from sglr.objectives import Outputs
from sglr.random import derive, seed_torch, torch_stream
from sglr.threat import Threat
from sglr.training.attacking import adversarial
from sglr.training.components import checked_loss, checked_targets
from sglr.training.learner import Learner
from sglr.training.plan import Plan
from sglr.training.precision import computing, memory_format


class Taken(NamedTuple):
    """What one step computed, of the whole batch and detached."""

    loss: Tensor
    """Scalar."""
    predicted: Tensor
    """Classes (N,), by the forward the loss was computed on."""
    targets: Tensor
    """(N, C), as the label policy gave them."""


def take(plan: Plan, learner: Learner, x: Tensor, y: Tensor, index: Tensor, epoch: int, step: int) -> Taken:
    """Train on one batch, in ``plan.precision``.

    x: (N, C, H, W) in [0, 1], not augmented; y: given labels (N,); index: their positions in the training set; all of
    it in every process of a team. TrainingError where the objective's loss is not one number with a gradient, or the
    label policy's targets are not (N, C).
    """
    with computing(plan.precision, x.device):
        # For what draws from torch's own generators, such as dropout.
        seed_torch(derive(plan.seed, f"{plan.stream}/torch", epoch, step), x.device)
        # Before the attack, which needs their memory; those of a CUDA graph lie where its replays write.
        learner.optimizer.zero_grad(set_to_none=True)
        return _take(_Share.of(plan, learner, x, y, index, epoch, step))


def _take(share: "_Share") -> Taken:
    learner, team, epoch, index = share.learner, share.learner.team, share.epoch, share.index
    model, objective, labels, weights = learner.model, learner.objective, learner.labels, learner.weights
    x, y, own = share.x, share.y, index[share.rows]

    progress = (epoch - 1 + share.step / learner.steps) / share.plan.epochs
    labels.before_attack(
        Batch(epoch=epoch, progress=progress, index=index, natural=share.natural, averaged=share.averaged)
    )
    penalty = labels.penalty(epoch, own)
    x_adv = x
    if objective.attacks:
        attack_targets = labels.attack_targets(epoch, own)
        x_adv = adversarial(share.plan, learner, x, y, epoch, attack_targets, penalty, share.random_start)

    def gradients(copy: nn.Module, moved: Sequence[Tensor]) -> tuple[Tensor, ...]:
        loss = share.mean_loss(objective.forward(copy, x, x_adv), labels.targets(epoch, own), penalty)
        return team.total(torch.autograd.grad(loss / team.size, moved, materialize_grads=True))

    model.train()
    with weights.perturbed(model, epoch, gradients):
        outputs = objective.forward(learner.networks.trained, x, x_adv)
        seen = share.seen(outputs)
        step = Step(
            epoch=epoch, progress=progress, index=index, natural=lambda bn: share.natural(bn, outputs),
            averaged=share.averaged, outputs=seen, images=lambda: (share.whole(x), share.whole(x_adv)),
        )  # fmt: skip
        shape = (len(index), seen.main.shape[1])
        targets = checked_targets(share.plan, labels.update(step), shape, "a batch").detach()
        loss = share.mean_loss(outputs, targets[share.rows], penalty)
        loss.backward()
    learner.optimizer.step()
    weights.after_step(model, epoch)
    (total,) = team.total([loss.detach() / team.size])
    return Taken(total, seen.main.argmax(1), targets)


@dataclass(frozen=True)
class _Share:
    """What one process does of a batch. Random numbers are drawn, and the label policy is asked, for the whole batch;
    the rest is done for this share of it."""

    plan: Plan
    learner: Learner
    batch: Tensor
    """All of its images (N, C, H, W), augmented."""
    rows: slice
    """The batch's rows that are this share."""
    x: Tensor
    """The images of these rows."""
    y: Tensor
    """Their given labels."""
    index: Tensor
    """Positions (N,) of the whole batch in the training set."""
    epoch: int
    step: int

    @classmethod
    def of(cls, plan: Plan, learner: Learner, x: Tensor, y: Tensor, index: Tensor, epoch: int, step: int) -> Self:
        """This process's share of a batch as ``take`` is given it."""
        rows = learner.team.share(len(index))
        batch = learner.augmenting(x, epoch, step).contiguous(memory_format=memory_format(plan.precision, x.device))
        return cls(plan, learner, batch, rows, batch[rows], y[rows], index, epoch, step)

    def random_start(self, threat: Threat) -> Tensor:
        """Random points of the balls around this share's images."""
        stream = torch_stream(self.plan.seed, f"{self.plan.stream}/attack", self.epoch, self.step, self.x.device)
        return threat.random_start(self.batch, stream)[self.rows]

    def whole(self, part: Tensor) -> Tensor:
        """The batch's rows of which ``part`` are this share's."""
        return self.learner.team.whole(part, len(self.index))

    def seen(self, outputs: Outputs) -> Outputs:
        """The logits of the whole batch, without gradients, for what is remembered of it."""
        adversarial, natural = (
            None if logits is None else self.whole(logits.detach()) for logits in (outputs.adversarial, outputs.natural)
        )
        return Outputs(adversarial=adversarial, natural=natural)

    @torch.no_grad()
    def natural(self, bn: BatchNormMode, outputs: Outputs | None = None) -> Tensor:
        """Natural logits of the whole batch, those of ``outputs`` if it has some. In train mode, as published, its
        images enter batch norm's running statistics."""
        if outputs is not None and outputs.natural is not None:
            return self.whole(outputs.natural.detach())
        model = self.learner.model
        model.train(bn == "train")
        try:
            return self.whole(self.learner.networks.plain(self.x))
        finally:
            model.train()

    @torch.no_grad()
    def averaged(self) -> Tensor:
        """Natural logits of the whole batch, of the weights that are saved, in eval mode."""
        network = self.learner.weights.evaluated(self.learner.model)
        with attack_mode(network, "eval"):
            return self.whole(network(self.x))

    def mean_loss(self, outputs: Outputs, targets: Tensor, penalty: Penalty | None) -> Tensor:
        """This share's part of the batch's mean loss, times the number of processes, over which it is averaged."""
        learner, n = self.learner, len(self.index)
        weights = learner.labels.example_weights(self.epoch, self.index)
        weights = None if weights is None else weights[self.rows]
        loss = checked_loss(self.plan, learner.objective.total(outputs, targets, self.y, weights, penalty))
        return loss * (len(self.y) * learner.team.size / n)
