"""Adversarial weight perturbation: whole steps against a transcription of its formula in float64."""

import math

import pytest
import torch
from by_hand import LR, N, Pair, ce, kl
from tiny_training import assert_resumes, assert_same, net, plan, splits
from torch import nn

from sglr.training import fit
from sglr.weights import REGISTRY

GAMMA, BETA, RATIO, START = 0.01, 6.0, 0.7, 2
AWP = {"name": "awp", "gamma": GAMMA, "start_epoch": START}
LABELS = {
    "hard": {"name": "hard"},
    "refinement": {"name": "refinement", "start_epoch": 2, "refinement_ratio": RATIO},
    "ensembling": {"name": "ensembling", "start_epoch": 2, "ramp_epochs": 1, "weight": 30.0},
    "self_adaptive": {"name": "self_adaptive", "start_epoch": 2},
}


class Labels:
    """The label policies by hand: targets, example weights and penalty as they stand in an epoch, and their updates."""

    def __init__(self, name: str, onehot: torch.Tensor) -> None:
        self.name, self.onehot = name, onehot
        self.p = torch.zeros_like(onehot) if name == "ensembling" else onehot

    def targets(self, epoch: int) -> torch.Tensor:
        if self.name == "refinement" and epoch >= 2:
            return RATIO * self.p + (1 - RATIO) * self.onehot
        return self.p if self.name == "self_adaptive" else self.onehot

    def weights(self, epoch: int) -> torch.Tensor:
        confidence = self.p.max(1).values
        return confidence / confidence.mean() if self.name == "self_adaptive" and epoch >= 2 else torch.ones(N)

    def penalty(self, epoch: int, z: torch.Tensor) -> torch.Tensor:
        if self.name != "ensembling" or epoch < 2:
            return torch.zeros(N, dtype=torch.float64)
        w = 30 * math.exp(-5 * (3 - min(epoch, 3)) ** 2)
        return w * (torch.softmax(z, 1) - self.p / self.p.sum(1, keepdim=True)).square().mean(1)

    def before_attack(self, epoch: int, natural: torch.Tensor) -> None:
        if self.name == "ensembling" and epoch >= 2:
            self.p = 0.9 * self.p + 0.1 * torch.softmax(natural, 1)

    def after_forwards(self, epoch: int, z: torch.Tensor, z_adv: torch.Tensor) -> None:
        if self.name in ("refinement", "self_adaptive") and epoch >= 2:
            share = 0.8 if self.name == "refinement" else 0.0
            q = share * torch.softmax(z_adv, 1) + (1 - share) * torch.softmax(z, 1)
            self.p = 0.9 * self.p + 0.1 * q.detach()


@pytest.mark.parametrize(
    ("objective", "labels"),
    [
        ("at", "hard"), ("trades", "hard"), ("at", "refinement"), ("trades", "refinement"), ("at", "ensembling"),
        ("trades", "self_adaptive"),
    ],
)  # fmt: skip
def test_steps_are_the_formula(params, objective, labels):
    """The ascent uses the state before the step and leaves no trace in batch norm; predictions come from w + v."""
    pair = Pair(params, {"objective": objective, "labels": LABELS[labels], "weights": AWP})
    hand, x, state = pair.hand, pair.x, Labels(labels, pair.onehot)

    def loss_of(epoch, z, z_adv):
        if objective == "at":
            return (ce(state.targets(epoch), z_adv) + state.penalty(epoch, z_adv)).mean()
        return (state.weights(epoch) * ce(state.targets(epoch), z)).mean() + BETA * kl(z, z_adv).mean()

    for epoch in (1, 2, 3):
        found, _ = pair.take(epoch)
        natural = hand.logits(x, "eval").detach()
        state.before_attack(epoch, natural)

        def attacked(z, natural=natural, epoch=epoch):
            return ((ce(pair.onehot, z) if objective == "at" else kl(natural, z)) + state.penalty(epoch, z)).sum()

        x_adv = hand.attack(x, pair.start(epoch), "eval", attacked)
        moved = hand.w
        if epoch >= START:
            d = hand.gradients(loss_of(epoch, hand.logits(x, "batch"), hand.logits(x_adv, "batch")))
            moved = {
                name: (w + GAMMA * w.norm() / d[name].norm() * d[name] if w.dim() > 1 else w).detach().requires_grad_()
                for name, w in hand.w.items()
            }
        z = hand.logits(x, "train", moved) if objective == "trades" else None
        z_adv = hand.logits(x_adv, "train", moved)
        if labels == "refinement" and objective == "at" and epoch >= 2:
            z = hand.logits(x, "train", moved).detach()
        state.after_forwards(epoch, z, z_adv)
        loss = loss_of(epoch, z, z_adv)
        hand.descend(hand.gradients(loss, moved))  # from w: the weights are put back before the optimiser's step
        exact = epoch == 1 or labels == "hard"
        pair.assert_equal(found, loss, tolerance=1e-10 if exact else 5e-6)  # tables are in single precision


def policy(model: torch.nn.Module, **options):
    return REGISTRY.options("awp", **options).build(model)


def loss_on(model: torch.nn.Module) -> torch.Tensor:
    return model(torch.linspace(0, 1, 64).view(4, 1, 4, 4)).square().mean()


def ascent(copy: torch.nn.Module, moved: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad(loss_on(copy), moved)


def test_weights_are_put_back_exactly(params):
    pair = Pair(params, {"objective": "at", "labels": "hard", "weights": {"name": "awp", "gamma": 0.3}})
    before = [weight.detach().clone() for weight in pair.model.parameters()]
    for group in pair.learner.optimizer.param_groups:
        group["lr"] = 0.0
    pair.take(1)
    assert all(torch.equal(weight, old) for weight, old in zip(pair.model.parameters(), before, strict=True))
    for group in pair.learner.optimizer.param_groups:
        group["lr"] = LR
    pair.take(1)
    assert not torch.equal(pair.model.conv.weight, before[0])


def test_weights_are_put_back_when_a_step_fails():
    model = net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(RuntimeError, match="in the middle"), policy(model, gamma=0.3).perturbed(model, 1, ascent):
        raise RuntimeError("in the middle")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_each_tensor_climbs_by_gamma_times_its_norm_and_vectors_stay():
    model = net()
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    with policy(model, gamma=0.05).perturbed(model, 1, ascent):
        for name, value in model.named_parameters():
            distance = (value - before[name]).norm().item()
            expected = 0.05 * before[name].norm().item() if value.dim() > 1 else 0
            assert distance == pytest.approx(expected, rel=1e-5), name
        above = loss_on(model).item()
    assert above > loss_on(model).item()


def test_the_ascent_leaves_the_live_model_alone():
    model = net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with policy(model, gamma=0.05).perturbed(model, 1, ascent):
        assert torch.equal(model.bn.running_mean, before["bn.running_mean"])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(weight.grad is None for weight in model.parameters())


def test_a_flat_loss_moves_nothing():
    model = net()
    before = model.conv.weight.detach().clone()
    with policy(model).perturbed(model, 1, lambda copy, moved: torch.autograd.grad(0 * loss_on(copy), moved)):
        assert torch.equal(model.conv.weight, before)


def test_a_weight_that_is_not_used_stays(params):
    model = net(torch.float64)
    model.spare = nn.Linear(3, 3).double()
    spare = model.spare.weight.detach().clone()
    awp = {"objective": "at", "labels": "hard", "weights": AWP | {"start_epoch": 1}}
    chosen = plan(params, awp, optimizer={"lr": 0.1, "momentum": 0.0, "nesterov": False, "weight_decay": 0.0})
    fit(chosen, model, *splits(torch.float64))
    assert torch.equal(model.spare.weight, spare)


def test_the_mode_that_a_model_comes_in_makes_no_difference(params):
    chosen = plan(params, {"objective": "at", "labels": "hard", "weights": AWP | {"start_epoch": 1}})
    assert_same(fit(chosen, net().eval(), *splits()), fit(chosen, net().train(), *splits()))


def test_before_its_start_nothing_is_computed():
    model = net()
    with policy(model, start_epoch=3).perturbed(model, 2, lambda copy, moved: pytest.fail("ascended")):
        pass


@pytest.mark.parametrize("labels", ["hard", "refinement"])
def test_a_training_stopped_in_the_middle_of_an_epoch_ends_like_one_that_was_not(params, labels, tmp_path):
    assert_resumes(params, {"objective": "at", "labels": LABELS[labels], "weights": AWP}, tmp_path)
