"""One training step: attack, forwards, targets, loss, update.

Nothing in it waits for the device, except an average of the weights after each step, whose counter torch looks at.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from sglr.attacks import attack_mode, pgd
from sglr.data import augment
from sglr.labels import LabelPolicy, Step
from sglr.labels.registry import BatchNormMode, Penalty
from sglr.models.folding import Folded
from sglr.objectives import Objective, Outputs
from sglr.random import torch_stream
from sglr.training.plan import Plan
from sglr.training.precision import computing, exact_ends, memory_format
from sglr.weights import WeightPolicy


@dataclass
class Learner:
    """What a step changes: the live model, its optimiser, the label and weight policies."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    objective: Objective
    labels: LabelPolicy
    weights: WeightPolicy
    attacked: Folded | None = None
    """The eval-mode network that the attack sees, where batch norm is in eval mode."""

    @classmethod
    def build(cls, plan: Plan, model: nn.Module, given: Tensor, classes: int) -> Self:
        """For a model on its device, and the given labels (n,) of all training examples."""
        sgd, method = plan.optimizer, plan.method
        model = model.to(memory_format=memory_format(plan.precision, given.device))
        exact_ends(model)
        attacked = None
        if plan.attack_bn == "eval" and method.objective.build().attacks:
            attacked = Folded(model, torch.bfloat16 if plan.precision == "bf16" else None)
            exact_ends(attacked)
        optimizer = torch.optim.SGD(
            model.parameters(), lr=sgd.lr, momentum=sgd.momentum, nesterov=sgd.nesterov, weight_decay=sgd.weight_decay
        )
        return cls(
            model=model,
            optimizer=optimizer,
            objective=method.objective.build(),
            labels=method.labels.build(given, classes, plan.epochs),
            weights=method.weights.build(model),
            attacked=attacked,
        )


def take(
    plan: Plan, learner: Learner, x: Tensor, y: Tensor, index: Tensor, epoch: int, step: int
) -> tuple[Tensor, Tensor]:
    """Train on one batch, in ``plan.precision``.

    x: (N, C, H, W) in [0, 1], not augmented; y: given labels (N,); index: their positions in the training set. Returns
    the loss (scalar) and the classes predicted by the forward the loss was computed on (N,), both detached.
    """
    with computing(plan.precision, x.device):
        return _take(plan, learner, x, y, index, epoch, step)


def _take(
    plan: Plan, learner: Learner, x: Tensor, y: Tensor, index: Tensor, epoch: int, step: int
) -> tuple[Tensor, Tensor]:
    x = augment(
        x,
        crop_padding=plan.augment.crop_padding,
        flip=plan.augment.flip,
        generator=torch_stream(plan.seed, f"{plan.stream}/augment", epoch, step, x.device),
    )
    x = x.contiguous(memory_format=memory_format(plan.precision, x.device))
    model, objective, labels, weights = learner.model, learner.objective, learner.labels, learner.weights
    labels.before_attack(epoch, index, lambda bn: _natural(model, x, None, bn))
    penalty = labels.penalty(epoch, index)
    x_adv = _attack(plan, learner, x, y, penalty, epoch, step) if objective.attacks else x

    def ascent(copy: nn.Module) -> Tensor:
        outputs = objective.forward(copy, x, x_adv)
        return _loss(objective, outputs, labels.current(epoch, index), y, labels.example_weights(epoch, index), penalty)

    model.train()
    learner.optimizer.zero_grad(set_to_none=True)
    with weights.perturbed(model, epoch, ascent):
        outputs = objective.forward(model, x, x_adv)
        targets = labels.targets(Step(epoch, index, outputs, lambda bn: _natural(model, x, outputs, bn)))
        loss = _loss(objective, outputs, targets, y, labels.example_weights(epoch, index), penalty)
        loss.backward()
    learner.optimizer.step()
    weights.after_step(model, epoch)
    return loss.detach(), outputs.main.detach().argmax(1)


def _attack(
    plan: Plan, learner: Learner, x: Tensor, y: Tensor, penalty: Penalty | None, epoch: int, step: int
) -> Tensor:
    """Adversarial examples for the batch; the model's modes and statistics stay as they are."""
    model, settings = learner.model, plan.attack
    with attack_mode(model, plan.attack_bn):
        if learner.attacked is not None:
            learner.attacked.refresh()
        network = learner.attacked or model
        plain = learner.objective.attack_loss(network, x)
        return pgd(
            network,
            x,
            y,
            threat=plan.threat,
            step_size=settings.step_size_255 / 255,
            steps=settings.steps,
            random_start=settings.random_start,
            loss=plain if penalty is None else lambda logits, labels: plain(logits, labels) + penalty(logits),
            generator=torch_stream(plan.seed, f"{plan.stream}/attack", epoch, step, x.device),
        )


def _loss(
    objective: Objective, outputs: Outputs, targets: Tensor, y: Tensor, weights: Tensor | None, penalty: Penalty | None
) -> Tensor:
    loss = objective.loss(outputs, targets, y, weights)
    return loss if penalty is None else loss + penalty(objective.penalised(outputs)).mean()


@torch.no_grad()
def _natural(model: nn.Module, x: Tensor, outputs: Outputs | None, bn: BatchNormMode) -> Tensor:
    """Natural logits for a label policy. In train mode, as published, x enters batch norm's running statistics."""
    if outputs is not None and outputs.natural is not None:
        return outputs.natural.detach()
    model.train(bn == "train")
    try:
        logits: Tensor = model(x)
        return logits
    finally:
        model.train()
