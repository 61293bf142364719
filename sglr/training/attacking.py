"""The attack of a training step: PGD as ``train.attack`` says, or the objective's own."""

import contextlib
from collections.abc import Callable

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
from sglr.training.trials import fault


def adversarial(
    plan: Plan, learner: Learner, x: Tensor, y: Tensor, epoch: int, penalty: Penalty | None,
    random_start: Callable[[Threat], Tensor],
) -> Tensor:  # fmt: skip
    """Adversarial examples for this share of the batch; the model's modes and statistics stay as they are."""
    networks, settings = learner.networks, plan.attack
    # A folded network has modes of its own.
    folded = networks.folded is not None and networks.folded.traced
    with contextlib.nullcontext() if folded else attack_mode(learner.model, plan.attack_bn):
        if networks.folded is not None:
            networks.folded.refresh()
        plain = learner.objective.attack_loss(networks.attacked, x)
        loss = plain if penalty is None else lambda logits, labels: plain(logits, labels) + penalty(logits)
        inner = _inner(plan, networks.attacked, x, y, loss, epoch, random_start)
        if networks.ascent is not None and penalty is None and len(x) == networks.ascent.batch:
            return networks.ascent(inner.start(), x, y, plain, settings.steps)
        return learner.objective.attack(inner).detach()


def require_attack(plan: Plan, model: nn.Module, train: Split) -> None:
    """Try an attack of the objective's own on two training images; all random numbers go on as if it had not been.

    TrainingError for one that fails, or gives something else than images of the same shape, type and device in [0, 1].
    """
    objective = plan.method.objective.build()
    if not objective.own_attack:
        return

    def attack(x: Tensor) -> Tensor:
        def random_start(threat: Threat) -> Tensor:
            return threat.random_start(x, torch_stream(plan.seed, "attack/trial", device=x.device))

        with attack_mode(model, "eval"):
            loss = objective.attack_loss(model, x)
            return objective.attack(_inner(plan, model, x, train.given[:2], loss, 1, random_start))

    found = fault(attack, train.images(slice(0, 2)), generator="`random_start`")
    if found:
        raise TrainingError(f"the attack of the objective {plan.method.objective.name!r} {found}")


def _inner(
    plan: Plan, model: nn.Module, x: Tensor, y: Tensor, loss: Loss, epoch: int,
    random_start: Callable[[Threat], Tensor],
) -> InnerMaximisation:  # fmt: skip
    return InnerMaximisation(
        model, x, y, loss, plan.threat, step_size=plan.attack.step_size(plan.threat.eps), steps=plan.attack.steps,
        start_at_random=plan.attack.random_start, epoch=epoch, epochs=plan.epochs, random_start=random_start,
    )  # fmt: skip
