"""Each label policy: whole steps against a transcription of its formula in float64."""

import copy
import math
from functools import partial
from pathlib import Path

import pytest
import torch
from by_hand import C, N, Pair, ce, kl, mart_margin
from tiny_training import equal, net, plan, splits
from torch.nn import functional as F

from sglr import objectives, weights
from sglr.labels import REGISTRY, Batch, Step
from sglr.training import fit

GIVEN = torch.arange(N) % C


def seeing(index: torch.Tensor, logits: torch.Tensor, progress: float = 0.0) -> Batch:
    """A batch of the first epoch for which every network gives these natural logits."""
    return Batch(epoch=1, progress=progress, index=index, natural=lambda bn: logits, averaged=lambda: logits)


def at(**labels) -> dict:
    return {"objective": "at", "labels": labels, "weights": "none"}


SAYING = (
    {"name": "hard"}, {"name": "hard", "natural_forward_from": 3}, {"name": "smoothing"},
    {"name": "refinement", "start_epoch": 3}, {"name": "refinement", "start_epoch": 2, "natural_bn": "eval"},
    {"name": "ensembling", "start_epoch": 2}, {"name": "self_adaptive", "start_epoch": 3},
    {"name": "self_distillation"},
)  # fmt: skip


@pytest.mark.parametrize("labels", SAYING, ids=lambda labels: "-".join(map(str, labels.values())))
def test_a_policy_says_when_and_how_it_asks_for_natural_logits(labels):
    options = REGISTRY.options(**labels)
    policy, said, index, asked = options.build(GIVEN, C, 4), options.natural_forward(), torch.arange(N), []
    logits = torch.zeros(N, C)

    def natural(where, bn):
        asked.append((where, bn))
        return logits

    for epoch in (1, 2, 3, 4):
        asked.clear()
        outputs, images = objectives.Outputs(adversarial=logits), lambda: pytest.fail("no images are needed")
        known = {"epoch": epoch, "progress": (epoch - 1) / 4, "index": index}
        before, after = partial(natural, "before"), partial(natural, "after")
        policy.before_attack(Batch(natural=before, averaged=partial(before, "eval"), **known))
        policy.update(Step(natural=after, averaged=partial(after, "eval"), outputs=outputs, images=images, **known))
        asks = said.start_epoch is not None and epoch >= said.start_epoch
        assert asked == [("before" if said.before_attack else "after", said.bn)] * asks


def test_every_policy_is_asked_what_it_says():
    assert {labels["name"] for labels in SAYING} == set(REGISTRY.names())


def test_steps_with_label_smoothing_are_the_formula(params):
    pair = Pair(params, at(name="smoothing", smoothing=0.1))
    t = torch.full((N, C), 0.1 / C, dtype=torch.float64)
    t[torch.arange(N), pair.y] = 0.9 + 0.1 / C
    for epoch in (1, 2):
        found, _ = pair.take(epoch)
        # The attack maximises cross-entropy with the hard label all the same.
        x_adv = pair.hand.attack(pair.x, pair.start(epoch), "eval", lambda z: ce(pair.onehot, z).sum())
        loss = ce(t, pair.hand.logits(x_adv, "train")).mean()
        pair.hand.descend(pair.hand.gradients(loss))
        pair.assert_equal(found, loss, tolerance=1e-7)  # targets are kept in single precision


@pytest.mark.parametrize("attack_bn", ["eval", "train"])
@pytest.mark.parametrize("objective", ["at", "trades"])
def test_steps_with_temporal_ensembling_are_the_formula(params, objective, attack_bn):
    """Update in eval mode before the attack, the penalty inside the attack and the loss, its weight by epoch."""
    labels = {"name": "ensembling", "start_epoch": 2, "ramp_epochs": 2, "momentum": 0.9, "weight": 300.0}
    pair = Pair(params, {"objective": objective, "labels": labels, "weights": "none"}, attack_bn)
    hand, x, onehot, p = pair.hand, pair.x, pair.onehot, torch.zeros(N, C, dtype=torch.float64)
    attacked_without = []
    for epoch, w in ((1, 0.0), (2, 300 * math.exp(-5)), (3, 300 * math.exp(-5 / 4)), (4, 300.0)):
        found, _ = pair.take(epoch)
        natural = hand.logits(x, "batch" if attack_bn == "train" else "eval").detach()
        if epoch >= 2:
            p = 0.9 * p + 0.1 * torch.softmax(hand.logits(x, "eval"), 1).detach()
        target = p / p.sum(1, keepdim=True) if epoch >= 2 else onehot

        def penalty(z, target=target, w=w):
            return w * (torch.softmax(z, 1) - target).square().mean(1)

        def plain(z, natural=natural):
            return ce(onehot, z) if objective == "at" else 6 * kl(natural, z)

        def whole(z, plain=plain, penalty=penalty):
            return (plain(z) + penalty(z)).sum()

        x_adv = hand.attack(x, pair.start(epoch), attack_bn, whole)
        attacked_without.append(hand.attack(x, pair.start(epoch), attack_bn, lambda z, plain=plain: plain(z).sum()))
        if objective == "at":
            z_adv = hand.logits(x_adv, "train")
            loss = (ce(onehot, z_adv) + penalty(z_adv)).mean()
        else:
            z, z_adv = hand.logits(x, "train"), hand.logits(x_adv, "train")
            loss = (ce(onehot, z) + penalty(z) + 6 * kl(z, z_adv)).mean()
        hand.descend(hand.gradients(loss))
        # The table is kept in single precision, and the weight multiplies what that loses.
        pair.assert_equal(found, loss, tolerance=1e-10 if epoch == 1 else 2e-5)
        torch.testing.assert_close(pair.learner.labels.state_dict()["p"].double(), p, atol=1e-6, rtol=0)
    assert not torch.equal(x_adv, attacked_without[-1])  # the penalty does move the attack


def test_the_ensembling_weight_is_a_ramp(params):
    options = REGISTRY.options("ensembling", start_epoch=90, ramp_epochs=60, weight=300.0)
    policy = options.build(GIVEN, C, 200)
    found = [policy.weight(epoch) for epoch in (1, 89, 90, 120, 150, 200)]
    assert found == pytest.approx([0, 0, 300 * math.exp(-5), 300 * math.exp(-5 / 4), 300, 300])


def test_a_first_ensembled_target_is_the_prediction_itself():
    """p starts at 0 and the penalty's target is p / sum p: whatever the momentum, the first is softmax(f(x))."""
    policy = REGISTRY.options("ensembling", start_epoch=1).build(GIVEN, C, 10)
    logits = torch.randn(N, C)
    policy.before_attack(seeing(torch.arange(N), logits))
    # The cross-entropy's targets stay the given labels.
    torch.testing.assert_close(policy.targets(1, torch.arange(N)), F.one_hot(GIVEN, C).float())
    penalty = policy.penalty(1, torch.arange(N))
    torch.testing.assert_close(penalty(logits), torch.zeros(N), atol=1e-9, rtol=0)


def test_what_ensembling_believes_is_its_average_once_there_is_one():
    policy = REGISTRY.options("ensembling", start_epoch=1).build(GIVEN, C, 10)
    everything, logits = torch.arange(N), torch.randn(N, C)
    assert torch.equal(policy.refined(1, everything), F.one_hot(GIVEN, C).float())
    policy.before_attack(seeing(everything[1:], logits[1:]))
    torch.testing.assert_close(policy.refined(1, everything[1:]), logits[1:].softmax(1))
    assert torch.equal(policy.refined(1, everything[:1]), F.one_hot(GIVEN[:1], C).float())


def test_steps_with_self_adaptive_training_are_the_formula(params):
    labels = {"name": "self_adaptive", "start_epoch": 2}
    pair = Pair(params, {"objective": {"name": "trades", "beta": 6.0}, "labels": labels, "weights": "none"})
    hand, p, weight = pair.hand, pair.onehot, torch.ones(N, dtype=torch.float64)
    for epoch in (1, 2, 3):
        found, _ = pair.take(epoch)
        natural = hand.logits(pair.x, "eval").detach()
        x_adv = hand.attack(pair.x, pair.start(epoch), "eval", lambda z, natural=natural: kl(natural, z).sum())
        z = hand.logits(pair.x, "train")
        if epoch >= 2:
            p = 0.9 * p + 0.1 * torch.softmax(z, 1).detach()
            weight = p.max(1).values * N / p.max(1).values.sum()
        loss = (weight * ce(p, z)).mean() + 6 * kl(z, hand.logits(x_adv, "train")).mean()
        hand.descend(hand.gradients(loss))
        pair.assert_equal(found, loss, tolerance=1e-10 if epoch == 1 else 1e-6)
        torch.testing.assert_close(pair.learner.labels.state_dict()["p"].double(), p, atol=2e-7, rtol=0)
    found_weights = pair.learner.labels.example_weights(3, torch.arange(N))
    assert found_weights.mean().item() == pytest.approx(1)
    assert found_weights.std() > 1e-3
    assert pair.learner.labels.example_weights(1, torch.arange(N)) is None


@pytest.mark.parametrize("attack_bn", ["eval", "train"])
@pytest.mark.parametrize("objective", ["at", "trades", "mart"])
def test_steps_with_self_distillation_are_the_formula(params, objective, attack_bn):
    """The average of the weights is the teacher, in eval mode and before the attack, which leads away from its targets;
    temperature and share are those of the step's place in the training."""
    labels = {"name": "self_distillation", "first_temperature": 2.5, "last_temperature": 2.0}
    decay = {"name": "ema", "decay": 0.5, "buffers": "average"}
    method = {"objective": objective, "labels": labels, "weights": decay}
    pair = Pair(params, method, attack_bn, epochs=60)
    hand, x, y, onehot = pair.hand, pair.x, pair.y, pair.onehot
    teacher, towards_given = None, []
    for epoch in (1, 25, 60):
        found, _ = pair.take(epoch)
        if teacher is None:  # nothing is averaged yet: the network itself
            seen = hand.logits(x, "eval")
        else:
            live, (hand.mean, hand.var) = (hand.mean, hand.var), teacher["statistics"]
            seen = hand.logits(x, "eval", teacher["w"])
            hand.mean, hand.var = live
        cosine = (1 + math.cos(math.pi * (epoch - 1) / 60)) / 2
        p = torch.softmax(seen.detach() / (2.0 + 0.5 * cosine), 1)
        t = torch.empty_like(p)
        for i in range(N):
            share = 0.95 - 0.25 * cosine - (max(p[i]) - p[i, y[i]])
            share = min(max(share, 0.0), 1.0)
            t[i] = share * p[i] + (1 - share) * onehot[i]
        natural = hand.logits(x, "batch" if attack_bn == "train" else "eval").detach()

        def maximised(z, natural=natural, t=t):
            return (kl(natural, z) if objective == "trades" else ce(t, z)).sum()

        x_adv = hand.attack(x, pair.start(epoch), attack_bn, maximised)
        towards_given.append(hand.attack(x, pair.start(epoch), attack_bn, lambda z: ce(onehot, z).sum()))
        if objective == "at":
            loss = ce(t, hand.logits(x_adv, "train")).mean()
        else:
            z, z_adv = hand.logits(x, "train"), hand.logits(x_adv, "train")
            if objective == "trades":
                loss = (ce(t, z) + 6 * kl(z, z_adv)).mean()
            else:
                sure = 1.0000001 - torch.softmax(z, 1)[torch.arange(N), y]
                loss = (ce(t, z_adv) + mart_margin(z_adv, y) + 5 * kl(z, z_adv) * sure).mean()
        hand.descend(hand.gradients(loss))
        # Targets are kept in single precision.
        pair.assert_equal(found, loss, tolerance=1e-6)
        torch.testing.assert_close(pair.learner.labels.state_dict()["p"].double(), t, atol=2e-7, rtol=0)
        assert torch.equal(t.argmax(1), y)
        now = {name: value.detach() for name, value in hand.w.items()}
        if teacher is None:
            teacher = {"w": now, "statistics": (hand.mean, hand.var)}
        else:
            (mean, var), w = teacher["statistics"], teacher["w"]
            teacher = {
                "w": {name: (w[name] + now[name]) / 2 for name in now},
                "statistics": ((mean + hand.mean) / 2, (var + hand.var) / 2),
            }
    if objective != "trades":
        assert not torch.equal(x_adv, towards_given[-1])  # the targets do move the attack


def test_a_share_that_is_used_up_leaves_the_given_label():
    """Where the teacher is surer of another class than lambda the target is the given label alone."""
    policy = REGISTRY.options("self_distillation", first_temperature=1.0).build(GIVEN[:2], C, 10)
    p = torch.tensor([[0.05, 0.85, 0.05, 0.05], [0.1, 0.5, 0.3, 0.1]])  # given: classes 0 and 1
    policy.before_attack(seeing(torch.arange(2), p.log()))
    targets = policy.targets(1, torch.arange(2))
    torch.testing.assert_close(targets[0], torch.tensor([1.0, 0.0, 0.0, 0.0]))
    torch.testing.assert_close(targets[1], 0.7 * p[1] + 0.3 * torch.tensor([0.0, 1.0, 0.0, 0.0]))


def test_a_network_without_an_average_is_its_own_teacher(params):
    """In eval mode, whose statistics it leaves alone; every module trains again afterwards."""
    pair = Pair(params, at(name="self_distillation"))
    seen, statistics, found = pair.hand.logits(pair.x, "eval").detach(), pair.hand.mean, []
    before_attack = pair.learner.labels.before_attack

    def watching(batch):
        found.append((batch.progress, batch.averaged()))
        assert torch.equal(pair.model.bn.running_mean, statistics)
        assert all(module.training for module in pair.model.modules())
        before_attack(batch)

    pair.learner.labels.before_attack = watching
    pair.take(16)
    ((progress, logits),) = found
    assert progress == 15 / 60
    torch.testing.assert_close(logits, seen)


def test_the_natural_forward_control_moves_batch_norm_and_nothing_else(params):
    """Against plain hard labels, in the same step: equal loss, weights, momentum and predictions; one more forward."""
    plain, control = (Pair(params, at(name="hard", **options)) for options in ({}, {"natural_forward_from": 2}))
    x, hand = plain.x, plain.hand
    for epoch in (1, 2):
        before = copy.deepcopy(control.model.state_dict())
        plain.model.load_state_dict(before)  # epoch 2 starts from equal statistics
        results = [pair.take(epoch) for pair in (plain, control)]
        x_adv = hand.attack(x, plain.start(epoch), "eval", lambda z: ce(plain.onehot, z).sum())
        loss = ce(plain.onehot, hand.logits(x_adv, "train")).mean()
        plain_mean = hand.mean
        if epoch == 2:
            hand.logits(x, "train")
        hand.descend(hand.gradients(loss))
        for found, expected in zip(*results, strict=True):
            assert torch.equal(found, expected)
        for (name, value), other in zip(plain.model.named_parameters(), control.model.parameters(), strict=True):
            assert torch.equal(value, other), name
        assert equal(plain.learner.optimizer.state_dict(), control.learner.optimizer.state_dict())
        torch.testing.assert_close(plain.model.bn.running_mean, plain_mean)
        torch.testing.assert_close(control.model.bn.running_mean, hand.mean)
        torch.testing.assert_close(control.model.bn.running_var, hand.var)
        forwards = int(control.model.bn.num_batches_tracked - before["bn.num_batches_tracked"])
        assert forwards == epoch
    assert not torch.equal(plain.model.bn.running_mean, control.model.bn.running_mean)


def test_before_its_start_refinement_is_adversarial_training(params):
    whole = fit(plan(params, at(name="hard")), net(), *splits())
    other = fit(plan(params, at(name="refinement", start_epoch=3)), net(), *splits())
    assert other.history[:2] == whole.history[:2]
    assert other.history[2] != whole.history[2]


def test_a_linear_ratio_rises_over_the_refining_epochs():
    options = REGISTRY.options("refinement", start_epoch=3, refinement_ratio=0.8, ratio_schedule="linear", alpha=0.5)
    policy = options.build(torch.tensor([0]), 2, 6)
    policy.load_state_dict({"p": torch.tensor([[0.0, 1.0]]), "epoch": 3})
    # The given label's share of the target of an example whose refined label is the other class: 1 - r.
    found = [policy.targets(epoch, torch.tensor([0]))[0, 0].item() for epoch in range(1, 7)]
    assert found == pytest.approx([1, 1, 0.8, 0.6, 0.4, 0.2])


def test_every_declared_method_is_trained_for_a_moment(params):
    """All of the shipped ``methods:``, shrunk: finite losses, targets on the simplex."""
    for name, method in copy.deepcopy(params["methods"]).items():
        for part, option in (("labels", "start_epoch"), ("labels", "natural_forward_from"), ("weights", "start_epoch")):
            if isinstance(method[part], dict) and option in method[part]:
                method[part][option] = 2
        result = fit(plan(params, method), net(), *splits())
        assert all(math.isfinite(row["train/loss"]) for row in result.history), name
        torch.testing.assert_close(result.refined.sum(1), torch.ones(24), msg=name)


def test_the_docs_describe_every_component():
    """docs/methods.md names each objective, label policy and weight policy there is."""
    text = (Path(__file__).parents[2] / "docs" / "methods.md").read_text()
    for registry in (objectives.REGISTRY, REGISTRY, weights.REGISTRY):
        for name in registry.names():
            assert f"`{name}`" in text, name
