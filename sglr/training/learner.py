"""What a training step changes, and the networks it calls."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from sglr.labels import LabelPolicy
from sglr.models.compiling import compiled
from sglr.models.folding import Folded
from sglr.objectives import Objective
from sglr.random import derive, seeded
from sglr.training.ascent import Ascent
from sglr.training.augmenting import Augmenting
from sglr.training.distributed import ALONE, Team, shared
from sglr.training.plan import Plan
from sglr.training.precision import exact_ends, memory_format
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
        objective = plan.method.objective.build()
        if plan.attack_bn == "eval" and objective.attacks:
            folded = Folded(model, torch.bfloat16 if plan.precision == "bf16" else None)
            if plan.precision == "bf16":
                exact_ends(folded)
            attacked = compiled(folded, device, plan.compile, batch=whole, channels_last=last)
            size = plan.attack.step_size(plan.threat.eps)
            if not objective.own_attack:
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
    steps: int
    """How many an epoch has."""
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
            steps=math.ceil(len(given) / plan.batch_size),
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
