"""Objectives with an attack of their own: what it is given, the step made with it, and those that are wrong."""

import dataclasses
import random
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from by_hand import EPS, ETA, SEED, STEPS, Pair, ce
from tiny_training import assert_resumes, assert_same, net, plan, splits
from torch import Tensor

from sglr.attacks.pgd import ascend, input_gradient
from sglr.config import ConfigError
from sglr.config.reader import validate
from sglr.objectives import InnerMaximisation
from sglr.objectives.at import AdversarialTraining, AtOptions
from sglr.objectives.standard import Standard
from sglr.objectives.trades import Trades
from sglr.random import torch_stream
from sglr.training import Plan, TrainingError, fit
from sglr.training.learner import Learner

AT = {"objective": "at", "labels": "hard", "weights": "none"}
Attack = Callable[[InnerMaximisation], Any]


class Own(AdversarialTraining):
    def __init__(self, made: Attack) -> None:
        self.made = made

    def attack(self, inner: InnerMaximisation) -> Tensor:
        return self.made(inner)


class OwnOptions(AtOptions):
    made: ClassVar[Attack]

    def build(self) -> Own:
        return Own(type(self).made)


def attacking(params: dict, made: Attack, labels: Any = "hard", **train: Any) -> Plan:
    """A training whose objective is that of ``at`` but for its attack."""
    chosen = plan(params, AT | {"labels": labels}, **train)
    kind = type("Options", (OwnOptions,), {"made": staticmethod(made), "__annotations__": {}})
    return dataclasses.replace(chosen, method=chosen.method.model_copy(update={"objective": kind(name="own")}))


def test_an_attack_that_calls_pgd_is_no_other(params):
    expected = fit(plan(params, AT), net(), *splits())
    assert_same(expected, fit(attacking(params, InnerMaximisation.pgd), net(), *splits()))

    def written_out(inner):
        return ascend(
            inner.model, inner.x, inner.y, threat=inner.threat, step_size=inner.step_size, steps=inner.steps,
            loss=inner.loss, start=inner.random_start(inner.threat),
        )  # fmt: skip

    assert_same(expected, fit(attacking(params, written_out), net(), *splits()))


@pytest.mark.parametrize("at_random", [True, False])
def test_what_it_is_given(params, at_random):
    params["train"]["attack"] |= {"random_start": at_random, "step_size_255": 3.0}
    seen: list[InnerMaximisation] = []

    def watched(inner):
        seen.append(inner)
        return inner.x

    train = splits()[0]
    fit(attacking(params, watched), net(), train)
    assert [inner.epoch for inner in seen[1:]] == [1, 1, 1, 2, 2, 2, 3, 3, 3]  # the first was tried
    assert {(len(inner.x), inner.epochs, inner.steps, inner.step_size) for inner in seen[1:]} == {(8, 3, 2, 3 / 255)}
    labels = torch.cat([inner.y for inner in seen[1:4]])
    assert torch.equal(labels.sort().values, train.given.sort().values)
    starts = [inner.start() for inner in seen[1:]]
    for inner, start in zip(seen[1:], starts, strict=True):
        assert torch.equal(start, inner.random_start(inner.threat) if at_random else inner.x)
        wider = inner.random_start(dataclasses.replace(inner.threat, eps=0.4))
        assert 0.25 < (wider - inner.x).abs().max() <= 0.4 + 1e-6
        loss = inner.loss(torch.zeros(8, 4), inner.y)
        torch.testing.assert_close(loss, torch.full((8,), 4.0).log())
    if at_random:
        assert not torch.equal(starts[0] - seen[1].x, starts[1] - seen[2].x)


def test_a_label_policys_penalty_is_in_the_loss(params):
    """That of temporal ensembling: the squared distance of the predictions to their average, which begins at 0."""
    labels = {"name": "ensembling", "start_epoch": 2, "ramp_epochs": 1, "weight": 300.0}
    found: list[float] = []

    def watched(inner):
        logits = torch.zeros(len(inner.x), 4)
        found.append(float((inner.loss(logits, inner.y) - torch.tensor(4.0).log()).abs().max()))
        return inner.pgd()

    fit(attacking(params, watched, labels), net(), *splits())
    assert max(found[:4]) < 1e-5  # before it begins
    assert min(found[4:]) > 1e-3


def test_a_label_policys_targets_are_in_the_loss_and_y_stays_the_given_label(params):
    """Those of self-distillation, whose largest entry is the given label's; at equal logits any target costs log C."""
    found: list[bool] = []

    def watched(inner):
        assert inner.y.dtype == torch.int64
        logits = torch.zeros(len(inner.x), 4, requires_grad=True)
        (gradient,) = torch.autograd.grad(inner.loss(logits, inner.y).sum(), logits)
        targets = 0.25 - gradient  # s - t is the gradient of cross-entropy
        assert torch.equal(targets.argmax(1), inner.y)
        found.append(bool((targets.amax(1) < 0.99).all()))
        return inner.pgd()

    fit(attacking(params, watched, {"name": "self_distillation"}), net(), *splits())
    assert found[0] is False  # tried on two images before there is a step
    assert len(found) > 1
    assert all(found[1:])


@pytest.mark.parametrize("attack_bn", ["eval", "train"])
def test_a_step_with_it_is_the_formula(params, attack_bn):
    """Half a radius more with each epoch, up to the whole: in float64, by hand."""
    pair = Pair(params, AT, attack_bn, epochs=2)

    def growing(inner):
        ball = dataclasses.replace(inner.threat, eps=inner.threat.eps * inner.epoch / inner.epochs)
        return ascend(
            inner.model, inner.x, inner.y, threat=ball, step_size=inner.step_size, steps=inner.steps, loss=inner.loss,
            start=inner.random_start(ball),
        )  # fmt: skip

    pair.learner.objective = Own(growing)
    for epoch in (1, 2):
        found, predicted = pair.take(epoch)
        eps = EPS * epoch / 2
        noise = torch.empty_like(pair.x).uniform_(-eps, eps, generator=torch_stream(SEED, "train/attack", epoch, 0))
        x_adv = (pair.x + noise).clamp(0, 1)
        for _ in range(STEPS):
            x_adv = x_adv.detach().requires_grad_()
            z = pair.hand.logits(x_adv, "batch" if attack_bn == "train" else "eval")
            (gradient,) = torch.autograd.grad(ce(pair.onehot, z).sum(), x_adv)
            moved = x_adv + ETA * gradient.sign()
            x_adv = torch.minimum(torch.maximum(moved, pair.x - eps), pair.x + eps).clamp(0, 1)
        z = pair.hand.logits(x_adv.detach(), "train")
        loss = ce(pair.onehot, z).mean()
        pair.hand.descend(pair.hand.gradients(loss))
        pair.assert_equal(found, loss)
        assert torch.equal(predicted, z.argmax(1))


def test_a_training_with_it_resumes(params, tmp_path, monkeypatch):
    def strayed(self, inner):
        """Outside the ball, and with the weights' graph left on what it returns."""
        noisy = inner.random_start(dataclasses.replace(inner.threat, eps=3 * inner.threat.eps))
        moved = noisy + inner.threat.step(input_gradient(inner.model, noisy, inner.y, inner.loss), inner.threat.eps)
        return moved.clamp(0, 1) + 0 * inner.model(moved).sum()

    monkeypatch.setattr(AdversarialTraining, "attack", strayed)
    assert_resumes(params, AT, tmp_path)


WRONG = {
    "shape": (lambda inner: inner.x[:1], r"gives images of shape \(1, 1, 4, 4\) for images of shape \(2, 1, 4, 4\)"),
    "type": (lambda inner: inner.x.double(), "gives images of type torch.float64"),
    "nothing": (lambda inner: None, "gives NoneType, no tensor"),
    "outside": (lambda inner: inner.x + 0.5, r"gives values from 0\.\d+ to 1\.\d+, outside \[0, 1\]"),
    "nan": (lambda inner: inner.x / 0 - inner.x / 0, "gives values that are NaN or infinite"),
    "in place": (lambda inner: inner.x.mul_(0.5), "changes the images that it is given"),
    "failing": (lambda inner: inner.images, "fails on two training images: AttributeError: 'InnerMaximisation'"),
    "random": (lambda inner: inner.x * random.random(), r"draws from .* let it draw from `random_start`$"),
    "torch": (lambda inner: inner.x * torch.rand(()), r"draws from torch's global .* let it draw from `random_start`$"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_one_is_refused_before_the_first_step(params, name):
    made, said = WRONG[name]
    train, validation = splits()
    before, model = train.x.clone(), net()
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(TrainingError, match=rf"^the attack of the objective 'own' {said}"):
        fit(attacking(params, made), model, train, validation)
    assert torch.equal(train.x, before)
    assert all(torch.equal(weights[key], value) for key, value in model.state_dict().items())
    assert model.training


def test_what_autocast_makes_of_it_is_found_before_the_first_step(params):
    """In bfloat16 a network's outputs are of that type, and what is made of them may be."""

    def made(inner):
        return torch.nn.functional.conv2d(inner.x, torch.ones(1, 1, 1, 1))

    with pytest.raises(
        TrainingError, match=r"'own' gives images of type torch\.bfloat16 for images of type torch\.float"
    ):
        fit(attacking(params, made, precision="bf16"), net(), *splits())
    assert len(fit(attacking(params, made, precision="fp32"), net(), *splits()).history) == 3


LATE = {
    "shape": (lambda inner: inner.x[:1], r"gives images of shape \(1, 1, 4, 4\) for images of shape \(8, 1, 4, 4\)"),
    "type": (lambda inner: inner.x.double(), "gives images of type torch.float64"),
    "nothing": (lambda inner: None, "gives NoneType, no tensor"),
    "in place": (lambda inner: inner.x.mul_(0), "changes the images that it is given: let it return new ones"),
}


@pytest.mark.parametrize("name", LATE)
def test_one_that_goes_wrong_later_ends_the_training(params, name):
    made, said = LATE[name]
    later = attacking(params, lambda inner: inner.pgd() if inner.epoch == 1 else made(inner))
    with pytest.raises(TrainingError, match=rf"^the attack of the objective 'own' {said}.* \(epoch 2\)$"):
        fit(later, net(), *splits())


def by_backward(inner):
    """FGSM as much published code has it."""
    x = inner.x.clone().requires_grad_()
    inner.loss(inner.model(x), inner.y).mean().backward()
    return (inner.x + inner.threat.eps * x.grad.sign()).clamp(0, 1)


def by_its_own_gradient(inner):
    gradient = input_gradient(inner.model, inner.x, inner.y, inner.loss)
    return (inner.x + inner.threat.eps * gradient.sign()).clamp(0, 1)


@pytest.mark.parametrize("attack_bn", ["eval", "train"])
def test_gradients_of_weights_that_an_attack_leaves_are_not_trained_on(params, attack_bn):
    params["train"]["attack_bn"] = attack_bn
    model = net()
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)  # the caller's, before training
    found = fit(attacking(params, by_backward), model, *splits())
    assert_same(found, fit(attacking(params, by_its_own_gradient), net(), *splits()))


def test_a_network_that_draws_in_eval_mode_is_no_fault_of_the_attack(params):
    class Drawing(type(net())):
        def forward(self, x):
            return super().forward(x) + 1e-3 * torch.rand(())

    assert len(fit(attacking(params, InnerMaximisation.pgd), Drawing(), *splits()).history) == 3


def test_it_does_not_share_a_warm_up_by_pgd(params):
    """Even where its options say so because those of ``at``, on which they build, do."""
    params["warmup"] |= {"objective": "adversarial", "epochs": 1}
    params["methods"] |= {"own": {"objective": Options(name="own"), "labels": "hard", "weights": "none"}}
    params["experiment"]["methods"] = ["at", "own"]
    params["train"]["epochs"] = 10
    with pytest.raises(ConfigError, match=r"methods\.own cannot continue .* its objective \(own\) already differs"):
        validate(params)
    params["methods"]["own"]["start"] = "initial"
    validate(params)


class Options(OwnOptions):
    made: ClassVar[Attack] = staticmethod(by_its_own_gradient)


def test_who_has_an_attack_of_their_own_and_how_many_gradients_it_takes():
    """Unknown where it is not told; a subclass of one that told its own keeps that."""
    assert (Standard().own_attack, Standard().gradients_for_attack(7)) == (False, 0)
    assert (Trades(6.0).own_attack, Trades(6.0).gradients_for_attack(7)) == (False, 7)
    own = Own(InnerMaximisation.pgd)
    assert (own.own_attack, own.gradients_for_attack(7)) == (True, None)

    class Unattacked(Own):
        attacks = False

    assert (Unattacked(own.made).own_attack, Unattacked(own.made).gradients_for_attack(7)) == (False, 0)


@pytest.mark.slow
def test_compiled_it_is_not_replaced_by_the_graph_of_pgd(params):
    chosen = attacking(params, lambda inner: inner.random_start(inner.threat), compile="always")
    learner = Learner.build(chosen, net(), splits()[0].given, 4)
    assert learner.networks.ascent is None
    eager = fit(dataclasses.replace(chosen, compile="never"), net(), *splits())
    made = fit(chosen, net(), *splits())
    for name, value in eager.last.items():
        torch.testing.assert_close(made.last[name], value, rtol=1e-3, atol=1e-4)
