"""One training step: attack, forwards, targets, loss, update.

Nothing in it waits for the device, but for torch's batch norm where several GPUs share its statistics.
"""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from sglr.attacks import attack_mode
from sglr.attacks.pgd import ascend
from sglr.config.fields import BatchNormMode
from sglr.labels import LabelPolicy, Step
from sglr.labels.registry import Penalty
from sglr.models.compiling import compiled
from sglr.models.folding import Folded
from sglr.objectives import Objective, Outputs
from sglr.random import derive, seed_torch, seeded, torch_stream
from sglr.training.ascent import Ascent
from sglr.training.augmenting import Augmenting
from sglr.training.distributed import ALONE, Team, shared
from sglr.training.plan import Plan
from sglr.training.precision import computing, exact_ends, memory_format
from sglr.weights import WeightPolicy


@dataclass(frozen=True)
class Networks:
    """The live model as a step calls it: as it is, compiled, folded, one of a team."""

    plain: nn.Module
    """For forwards without gradients."""
    trained: nn.Module
    """For forwards whose backward pass gives the weights' gradients, averaged over the team."""
    attacked: nn.Module
    """What the attack sees."""
    folded: Folded | None = None
    """Where batch norm is in eval mode under attack: what is behind ``attacked``, to be refreshed before it is used."""
    ascent: Ascent | None = None
    """The attack's steps compiled, for batches of the plan's size and losses without a penalty."""

    @classmethod
    def of(cls, plan: Plan, model: nn.Module, device: torch.device, team: Team) -> Self:
        """For a model that is on its device."""
        last = memory_format(plan.precision, device) is torch.channels_last
        whole = len(range(plan.batch_size)[team.share(plan.batch_size)])
        # Torch cuts a graph at every batch norm that several GPUs share, and waits for the device there; CUDA graphs
        # below DistributedDataParallel were not tried, and others report errors.
        shared_by_gpus = team.size > 1 and device.type == "cuda"
        plain = model if shared_by_gpus else compiled(model, device, plan.compile, batch=whole, channels_last=last)
        # Not compiled: its backward pass would compute the gradients of all weights too.
        attacked, folded, ascent = model, None, None
        if plan.attack_bn == "eval" and plan.method.objective.build().attacks:
            folded = Folded(model, torch.bfloat16 if plan.precision == "bf16" else None)
            if plan.precision == "bf16":
                exact_ends(folded)
            attacked = compiled(folded, device, plan.compile, batch=whole, channels_last=last)
            size = plan.attack.step_size(plan.threat.eps)
            ascent = Ascent.of(folded, plan.threat, size, device, plan.compile, batch=whole, channels_last=last)
        return cls(plain, team.trained(plain, device), attacked, folded, ascent)


@dataclass
class Learner:
    """What a step changes: the live model, its optimiser, the label and weight policies."""

    model: nn.Module
    networks: Networks
    optimizer: torch.optim.Optimizer
    objective: Objective
    labels: LabelPolicy
    weights: WeightPolicy
    augmenting: Augmenting
    team: Team = ALONE
    release: Callable[[], None] = lambda: None
    """Takes off what training put on the model for its own purposes."""

    @classmethod
    def build(cls, plan: Plan, model: nn.Module, given: Tensor, classes: int, team: Team = ALONE) -> Self:
        """For a model on its device, and the given labels (n,) of all training examples.

        ConfigError for a model that several processes cannot train.
        """
        sgd, method, device = plan.optimizer, plan.method, given.device
        model = shared(model, team.size, device).to(memory_format=memory_format(plan.precision, device))
        networks = Networks.of(plan, model, device, team)
        # After the folded network is made, which has exact ends of its own.
        release = exact_ends(model) if plan.precision == "bf16" else lambda: None
        optimizer = torch.optim.SGD(
            model.parameters(), lr=sgd.lr, momentum=sgd.momentum, nesterov=sgd.nesterov, weight_decay=sgd.weight_decay,
            fused=True if device.type == "cuda" else None,
        )  # fmt: skip
        return cls(
            model=model,
            networks=networks,
            optimizer=optimizer,
            objective=method.objective.build(),
            labels=label_policy(plan, given, classes),
            weights=weight_policy(plan, model),
            augmenting=Augmenting(plan),
            team=team,
            release=release,
        )


def label_policy(plan: Plan, given: Tensor, classes: int) -> LabelPolicy:
    """The plan's label policy as it begins, for given labels (n,) on their device; the plan decides what it draws."""
    with seeded(derive(plan.seed, "policies"), given.device):
        return plan.method.labels.build(given, classes, plan.epochs)


def weight_policy(plan: Plan, model: nn.Module) -> WeightPolicy:
    """The plan's weight policy as it begins, for a model on its device; the plan decides what it draws."""
    device = next((weight.device for weight in model.parameters()), torch.device("cpu"))
    with seeded(derive(plan.seed, "policies"), device):
        return plan.method.weights.build(model)


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
    x = learner.augmenting(x, epoch, step).contiguous(memory_format=memory_format(plan.precision, x.device))
    start = _start(plan, x, epoch, step) if objective.attacks else None
    x, y, start = x[own], y[own], None if start is None else start[own]

    def natural(bn: BatchNormMode, outputs: Outputs | None = None) -> Tensor:
        return team.whole(_natural(learner, x, outputs, bn), n)

    labels.before_attack(epoch, index, natural)
    penalty = labels.penalty(epoch, index[own])
    x_adv = _attack(plan, learner, x, y, start, penalty) if objective.attacks else x

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
        targets = labels.update(Step(epoch, index, seen, lambda bn: natural(bn, outputs), images))
        loss = mean(outputs, targets[own])
        loss.backward()
    learner.optimizer.step()
    weights.after_step(model, epoch)
    (total,) = team.total([loss.detach() / team.size])
    return total, seen.main.argmax(1)


def _start(plan: Plan, x: Tensor, epoch: int, step: int) -> Tensor | None:
    """Where the attack on x begins, if not at x."""
    if not plan.attack.random_start:
        return None
    return plan.threat.random_start(x, torch_stream(plan.seed, f"{plan.stream}/attack", epoch, step, x.device))


def _attack(
    plan: Plan, learner: Learner, x: Tensor, y: Tensor, start: Tensor | None, penalty: Penalty | None
) -> Tensor:
    """Adversarial examples for this share of the batch; the model's modes and statistics stay as they are."""
    networks, settings = learner.networks, plan.attack
    # A folded network has modes of its own.
    folded = networks.folded is not None and networks.folded.traced
    with contextlib.nullcontext() if folded else attack_mode(learner.model, plan.attack_bn):
        if networks.folded is not None:
            networks.folded.refresh()
        plain = learner.objective.attack_loss(networks.attacked, x)
        start = x if start is None else start
        if networks.ascent is not None and penalty is None and len(x) == networks.ascent.batch:
            return networks.ascent(start, x, y, plain, settings.steps)
        return ascend(
            networks.attacked,
            x,
            y,
            threat=plan.threat,
            step_size=settings.step_size(plan.threat.eps),
            steps=settings.steps,
            loss=plain if penalty is None else lambda logits, labels: plain(logits, labels) + penalty(logits),
            start=start,
        )


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
