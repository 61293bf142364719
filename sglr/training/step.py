"""One training step: attack, forwards, targets, loss, update.

Nothing in it waits for the device, but for torch's batch norm where several GPUs share its statistics.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sglr.attacks import attack_mode
from sglr.config.fields import BatchNormMode
from sglr.labels import Batch, Step
from sglr.objectives import Outputs
from sglr.random import derive, seed_torch, torch_stream
from sglr.threat import Threat
from sglr.training.attacking import adversarial
from sglr.training.distributed import Team
from sglr.training.learner import Learner
from sglr.training.plan import Plan
from sglr.training.precision import computing, memory_format


def take(
    plan: Plan, learner: Learner, x: Tensor, y: Tensor, index: Tensor, epoch: int, step: int
) -> tuple[Tensor, Tensor]:
    """Train on one batch, in ``plan.precision``.

    x: (N, C, H, W) in [0, 1], not augmented; y: given labels (N,); index: their positions in the training set; all of
    it in every process of a team. Returns the loss (scalar) and the classes predicted by the forward the loss was
    computed on (N,), both detached, of the whole batch.
    """
    with computing(plan.precision, x.device):
        return _take(plan, learner, x, y, index, epoch, step)


def _take(
    plan: Plan, learner: Learner, x: Tensor, y: Tensor, index: Tensor, epoch: int, step: int
) -> tuple[Tensor, Tensor]:
    model, objective, labels, weights = learner.model, learner.objective, learner.labels, learner.weights
    team, n = learner.team, len(index)
    # For what draws from torch's own generators, such as dropout.
    seed_torch(derive(plan.seed, f"{plan.stream}/torch", epoch, step), x.device)
    # Before the attack, which needs their memory; those of a CUDA graph lie where its replays write.
    learner.optimizer.zero_grad(set_to_none=True)
    # Random numbers are drawn, and the label policy is asked, for the whole batch; the rest is done for this share.
    own = team.share(n)
    batch = learner.augmenting(x, epoch, step).contiguous(memory_format=memory_format(plan.precision, x.device))
    x, y = batch[own], y[own]

    def random_start(threat: Threat) -> Tensor:
        return threat.random_start(batch, torch_stream(plan.seed, f"{plan.stream}/attack", epoch, step, x.device))[own]

    def natural(bn: BatchNormMode, outputs: Outputs | None = None) -> Tensor:
        return team.whole(_natural(learner, x, outputs, bn), n)

    known: dict[str, Any] = {
        "epoch": epoch, "progress": (epoch - 1 + step / learner.steps) / plan.epochs, "index": index,
        "averaged": lambda: team.whole(_averaged(learner, x), n),
    }  # fmt: skip
    labels.before_attack(Batch(natural=natural, **known))
    penalty = labels.penalty(epoch, index[own])
    x_adv = x
    if objective.attacks:
        goal = labels.attacked(epoch, index[own])
        x_adv = adversarial(plan, learner, x, y, epoch, goal, penalty, random_start)

    def mean(outputs: Outputs, targets: Tensor) -> Tensor:
        """This share's part of the batch's mean loss, times the number of processes, over which it is averaged."""
        example_weights = labels.example_weights(epoch, index)
        loss = objective.total(outputs, targets, y, None if example_weights is None else example_weights[own], penalty)
        return loss * (len(y) * team.size / n)

    def ascent(copy: nn.Module, moved: Sequence[Tensor]) -> tuple[Tensor, ...]:
        loss = mean(objective.forward(copy, x, x_adv), labels.targets(epoch, index[own]))
        return team.total(torch.autograd.grad(loss / team.size, moved, materialize_grads=True))

    def images() -> tuple[Tensor, Tensor]:
        return team.whole(x, n), team.whole(x_adv, n)

    model.train()
    with weights.perturbed(model, epoch, ascent):
        outputs = objective.forward(learner.networks.trained, x, x_adv)
        seen = _seen(team, outputs, n)
        targets = labels.update(Step(outputs=seen, natural=lambda bn: natural(bn, outputs), images=images, **known))
        loss = mean(outputs, targets[own])
        loss.backward()
    learner.optimizer.step()
    weights.after_step(model, epoch)
    (total,) = team.total([loss.detach() / team.size])
    return total, seen.main.argmax(1)


def _seen(team: Team, outputs: Outputs, n: int) -> Outputs:
    """The logits of the whole batch, without gradients, for what is remembered of it."""
    adversarial, natural = (
        None if logits is None else team.whole(logits.detach(), n) for logits in (outputs.adversarial, outputs.natural)
    )
    return Outputs(adversarial=adversarial, natural=natural)


@torch.no_grad()
def _natural(learner: Learner, x: Tensor, outputs: Outputs | None, bn: BatchNormMode) -> Tensor:
    """Natural logits for a label policy. In train mode, as published, x enters batch norm's running statistics."""
    if outputs is not None and outputs.natural is not None:
        return outputs.natural.detach()
    model = learner.model
    model.train(bn == "train")
    try:
        logits: Tensor = learner.networks.plain(x)
        return logits
    finally:
        model.train()


@torch.no_grad()
def _averaged(learner: Learner, x: Tensor) -> Tensor:
    """Natural logits of the weights that are saved, in eval mode."""
    network = learner.weights.evaluated(learner.model)
    with attack_mode(network, "eval"):
        logits: Tensor = network(x)
    return logits
