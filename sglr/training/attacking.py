"""The attack of a training step: PGD as ``train.attack`` says, or the objective's own."""

import contextlib
from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from sglr.attacks import attack_mode
from sglr.attacks.losses import Loss
from sglr.data import Split
from sglr.labels.registry import Penalty
from sglr.objectives import InnerMaximisation
from sglr.random import torch_stream
from sglr.threat import Threat
from sglr.training.errors import TrainingError
from sglr.training.learner import Learner
from sglr.training.plan import Plan
from sglr.training.precision import computing
from sglr.training.trials import CHANGED, fault, misfit


def adversarial(
    plan: Plan, learner: Learner, x: Tensor, y: Tensor, epoch: int, attack_targets: Tensor | None,
    penalty: Penalty | None, random_start: Callable[[Threat], Tensor],
) -> Tensor:  # fmt: skip
    """Adversarial examples for this share of the batch; the model's modes and statistics stay as they are.

    attack_targets: those (N, C) that they lead away from, in place of the given labels y (N,).
    """
    networks, settings = learner.networks, plan.attack
    # A folded network has modes of its own.
    folded = networks.folded is not None and networks.folded.traced
    with contextlib.nullcontext() if folded else attack_mode(learner.model, plan.attack_bn):
        if networks.folded is not None:
            networks.folded.refresh()
        plain = learner.objective.attack_loss(networks.attacked, x)
        # What an attack of one's own asks for by y, such as a class to leave, are the given labels all the same.
        aimed = plain if attack_targets is None else lambda logits, _: plain(logits, attack_targets)
        loss = aimed if penalty is None else lambda logits, labels: aimed(logits, labels) + penalty(logits)
        inner = _inner(plan, networks.attacked, x, y, loss, epoch, random_start)
        if networks.ascent is not None and penalty is None and len(x) == networks.ascent.batch:
            targets = y if attack_targets is None else attack_targets
            return networks.ascent(inner.start(), x, targets, plain, settings.steps)
        return _own(plan, learner, inner) if learner.objective.own_attack else inner.pgd()


def _own(plan: Plan, learner: Learner, inner: InnerMaximisation) -> Tensor:
    """What the objective's own attack makes, in any epoch as it must be as far as that can be told without waiting for
    the device."""
    version = inner.x._version
    found = learner.objective.attack(inner)
    if said := CHANGED if inner.x._version != version else misfit(found, inner.x):
        raise _refused(plan, f"{said} (epoch {inner.epoch})")
    # An attack that takes its gradient by backward() leaves the weights' own.
    learner.optimizer.zero_grad(set_to_none=True)
    return found.detach()


def require_attack(plan: Plan, model: nn.Module, train: Split) -> None:
    """Try an attack of the objective's own on two training images; all random numbers go on as if it had not been.

    TrainingError for one that fails, gives something else than images of the same shape, type and device in [0, 1],
    changes its input, or draws other random numbers than ``random_start``'s.
    """
    objective = plan.method.objective.build()
    if not objective.own_attack:
        return

    x, gradients = train.images(slice(0, 2)), [weight.grad for weight in model.parameters()]

    def attack(x: Tensor, *, made: Callable[[InnerMaximisation], Tensor] = objective.attack) -> Tensor:
        def random_start(threat: Threat) -> Tensor:
            return threat.random_start(x, torch_stream(plan.seed, "attack/trial", device=x.device))

        with attack_mode(model, "eval"), computing(plan.precision, x.device):
            loss = objective.attack_loss(model, x)
            return made(_inner(plan, model, x, train.given[:2], loss, 1, random_start))

    # A network that draws in eval mode does so whoever attacks it.
    network = fault(partial(attack, made=InnerMaximisation.pgd), x, generator="", of_torch=False)
    found = fault(attack, x, generator="`random_start`", of_torch=network is not None)
    for weight, gradient in zip(model.parameters(), gradients, strict=True):
        weight.grad = gradient
    if found:
        raise _refused(plan, found)


def _refused(plan: Plan, what: str) -> TrainingError:
    return TrainingError(f"the attack of the objective {plan.method.objective.name!r} {what}")


def _inner(
    plan: Plan, model: nn.Module, x: Tensor, y: Tensor, loss: Loss, epoch: int,
    random_start: Callable[[Threat], Tensor],
) -> InnerMaximisation:  # fmt: skip
    return InnerMaximisation(
        model, x, y, loss, plan.threat, step_size=plan.attack.step_size(plan.threat.eps), steps=plan.attack.steps,
        start_at_random=plan.attack.random_start, epoch=epoch, epochs=plan.epochs, random_start=random_start,
    )  # fmt: skip
