"""One training step: attack, forwards, targets, loss, update. Nothing in it waits for the device."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sglr.attacks import attack_mode, pgd
from sglr.data import augment
from sglr.labels import LabelPolicy, Step
from sglr.labels.registry import BatchNormMode
from sglr.objectives import Objective, Outputs
from sglr.random import torch_stream
from sglr.training.plan import Plan
from sglr.weights import WeightPolicy


@dataclass
class Learner:
    """What a step changes: the live model, its optimiser, the label and weight policies."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    objective: Objective
    labels: LabelPolicy
    weights: WeightPolicy


def take(plan: Plan, learner: Learner, x: Tensor, y: Tensor, index: Tensor, epoch: int, step: int) -> tuple[Tensor, Tensor]:
    """Train on one batch.

    x: (N, C, H, W) in [0, 1], not augmented; y: given labels (N,); index: their positions in the training set. Returns
    the loss (scalar) and the classes predicted by the forward the loss was computed on (N,), both detached.
    """
    x = augment(
        x,
        crop_padding=plan.augment.crop_padding,
        flip=plan.augment.flip,
        generator=torch_stream(plan.seed, f"{plan.stream}/augment", epoch, step, x.device),
    )
    model, objective = learner.model, learner.objective
    x_adv = x
    if objective.attacks:
        with attack_mode(model, plan.attack_bn):
            x_adv = pgd(
                model,
                x,
                y,
                threat=plan.threat,
                step_size=plan.attack.step_size_255 / 255,
                steps=plan.attack.steps,
                random_start=plan.attack.random_start,
                generator=torch_stream(plan.seed, f"{plan.stream}/attack", epoch, step, x.device),
            )
    model.train()
    outputs = objective.forward(model, x, x_adv)
    targets = learner.labels.targets(Step(epoch, index, outputs, lambda bn: _natural(model, x, outputs, bn)))
    loss = objective.loss(outputs, targets, y)
    learner.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    learner.optimizer.step()
    learner.weights.after_step(model, epoch)
    return loss.detach(), outputs.main.detach().argmax(1)


@torch.no_grad()
def _natural(model: nn.Module, x: Tensor, outputs: Outputs, bn: BatchNormMode) -> Tensor:
    """Natural logits for a label policy. In train mode, as published, x enters batch norm's running statistics."""
    if outputs.natural is not None:
        return outputs.natural.detach()
    model.train(bn == "train")
    try:
        return model(x)
    finally:
        model.train()
