"""Averaged weights: closed forms, batch norm's statistics, storage, and what is validated and saved."""

import copy

import pytest
import torch
from by_hand import C, N, Net, Pair
from tiny_training import EPOCHS, assert_resumes, equal, net, plan, splits
from torch import nn

from sglr import files, models
from sglr.models.small_cnn import SmallCNNOptions
from sglr.training import fit
from sglr.weights import REGISTRY
from sglr.weights.registry import share_of

DECAY = 0.9


def method(name: str, **options) -> dict:
    return {"objective": "at", "labels": "hard", "weights": {"name": name} | options}


def statistics_of(weights: dict, x: torch.Tensor, batch_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Means over batches of the channels' mean and unbiased variance that enter batch norm of ``Net``."""
    parts = [
        torch.nn.functional.conv2d(part, weights["conv.weight"], weights["conv.bias"], padding=1)
        for part in x.split(batch_size)
    ]
    mean = torch.stack([part.mean((0, 2, 3)) for part in parts]).mean(0)
    return mean, torch.stack([part.var((0, 2, 3)) for part in parts]).mean(0)


@pytest.mark.parametrize("buffers", ["average", "copy"])
def test_ema_is_its_closed_form(params, buffers):
    """After n updates: d^(n-1) w_1 + (1 - d) sum_k=2..n d^(n-k) w_k; the first averaged step is taken as it is."""
    pair = Pair(params, method("ema", decay=DECAY, start_epoch=2, buffers=buffers))
    weights, live = pair.learner.weights, []
    pair.take(1)
    assert weights.evaluated(pair.model) is pair.model  # before the start the live model is evaluated
    for _ in range(6):
        pair.take(2)
        live.append({name: value.clone() for name, value in pair.model.state_dict().items()})
    averaged = weights.evaluated(pair.model).state_dict()
    shares = [DECAY**5] + [(1 - DECAY) * DECAY ** (6 - k) for k in range(2, 7)]
    assert sum(shares) == pytest.approx(1)
    for name, value in averaged.items():
        if not value.is_floating_point() or (buffers == "copy" and "running" in name):
            assert torch.equal(value, live[-1][name]), name
        else:
            expected = sum(share * state[name] for share, state in zip(shares, live, strict=True))
            torch.testing.assert_close(value, expected, msg=name)
            assert not torch.allclose(value, live[-1][name], rtol=1e-4, atol=0), name


@pytest.mark.parametrize(("name", "buffers"), [("ema", "average"), ("ema", "copy"), ("swa", "recompute")])
def test_an_average_shares_no_storage_with_the_live_model(params, name, buffers):
    pair = Pair(params, method(name, buffers=buffers))
    pair.take(1)
    pair.learner.weights.after_epoch(pair.model, 1, lambda: pair.x.split(5))
    averaged = pair.learner.weights.evaluated(pair.model)
    assert averaged is not pair.model
    live = {value.untyped_storage().data_ptr() for value in pair.model.state_dict().values()}
    assert not live & {value.untyped_storage().data_ptr() for value in averaged.state_dict().values()}
    kept = copy.deepcopy(averaged.state_dict())
    with torch.no_grad():
        for value in pair.model.state_dict().values():
            value.zero_()
    assert equal(averaged.state_dict(), kept)


def test_averaging_leaves_a_constant_exactly_as_it_is():
    """Normalisation's mean and deviation are buffers too; d a + (1 - d) a would wander off by rounding."""
    options = SmallCNNOptions(name="small_cnn", normalization={"mean": [0.4914], "std": [0.2471]})
    model = models.build(options, num_classes=C, shape=(1, 4, 4), generator_seed=0)
    policy = REGISTRY.options("ema", decay=0.995).build(model)
    for _ in range(200):
        policy.after_step(model, 1)
    assert equal(policy.evaluated(model).state_dict(), model.state_dict())


def test_swa_is_the_equal_average_of_the_epochs_ends(params):
    live, alone = net(torch.float64), net(torch.float64)
    plain = fit(plan(params, method("none"), keep_epochs=[1, 2, 3]), alone, *splits(torch.float64))
    swa = fit(plan(params, method("swa", start_epoch=2)), live, *splits(torch.float64))
    for name in ("conv.weight", "conv.bias", "bn.weight", "bn.bias", "head.weight", "head.bias"):
        torch.testing.assert_close(swa.last[name], (plain.kept[2][name] + plain.kept[3][name]) / 2, msg=name)
    # The live weights go their way undisturbed.
    assert equal(live.state_dict(), alone.state_dict())
    assert swa.history[0] == plain.history[0]


def test_swa_can_average_the_statistics_too(params):
    plain = fit(plan(params, method("none"), keep_epochs=[1, 2, 3]), net(torch.float64), *splits(torch.float64))
    swa = fit(plan(params, method("swa", buffers="average")), net(torch.float64), *splits(torch.float64))
    for name in ("bn.running_mean", "bn.running_var"):
        torch.testing.assert_close(swa.last[name], sum(plain.kept[epoch][name] for epoch in (1, 2, 3)) / 3)


@pytest.mark.parametrize("name", ["ema", "swa"])
def test_recomputed_statistics_are_those_of_the_average_on_the_training_images(params, name):
    chosen = plan(params, method(name, start_epoch=2, buffers="recompute"), batch_size=7)  # 24 = 7 + 7 + 7 + 3
    result = fit(chosen, net(torch.float64), *splits(torch.float64))
    mean, var = statistics_of(result.last, splits(torch.float64)[0].x, 7)
    torch.testing.assert_close(result.last["bn.running_mean"], mean)
    torch.testing.assert_close(result.last["bn.running_var"], var)


@pytest.mark.parametrize(("name", "buffers"), [("ema", "average"), ("ema", "copy"), ("swa", "recompute")])
def test_what_is_saved_is_what_was_validated(params, name, buffers):
    """A new model with the saved weights, in eval mode, has the accuracies of the history's last row."""
    train, validation = splits()
    live, loaded = net(), Net()
    result = fit(plan(params, method(name, buffers=buffers)), live, train, validation)
    loaded.load_state_dict(result.last)
    loaded.eval()
    for split, key in ((train, "train/natural"), (validation, "val/natural")):
        share = (loaded(split.x).argmax(1) == split.given).float().mean().item()
        assert result.history[-1][key] == pytest.approx(share)
    assert not torch.equal(live.conv.weight, loaded.conv.weight)


def test_the_end_of_an_epoch_leaves_the_live_model_alone(params):
    pair = Pair(params, method("swa"))
    pair.take(1)
    before = copy.deepcopy(pair.model.state_dict())
    pair.learner.weights.after_epoch(pair.model, 1, lambda: pair.x.split(5))
    assert equal(pair.model.state_dict(), before)
    assert all(module.training for module in pair.model.modules())
    assert pair.learner.weights.evaluated(pair.model).bn.momentum == pair.model.bn.momentum == 0.1


def test_an_average_of_one_epoch_has_its_weights_and_new_statistics(params):
    result = fit(plan(params, method("swa", start_epoch=EPOCHS)), net(), *splits())
    plain = fit(plan(params, method("none")), net(), *splits())
    assert torch.equal(result.last["conv.weight"], plain.last["conv.weight"])
    assert not torch.equal(result.last["bn.running_mean"], plain.last["bn.running_mean"])


@pytest.mark.parametrize(("name", "buffers"), [("ema", "average"), ("ema", "recompute"), ("swa", "recompute")])
def test_state_goes_through_a_file_and_back(params, name, buffers, tmp_path):
    pair = Pair(params, method(name, buffers=buffers))

    def epoch_of(policy) -> None:
        policy.after_step(pair.model, 1)
        policy.after_epoch(pair.model, 1, lambda: pair.x.split(N))

    policy = pair.learner.weights
    for _ in range(2):
        pair.take(1)
        policy.after_epoch(pair.model, 1, lambda: pair.x.split(N))
    files.save_state(tmp_path / "state", policy.state_dict())
    other = pair.plan.method.weights.build(Net().double())
    other.load_state_dict(files.load_state(tmp_path / "state"))
    assert equal(other.state_dict(), policy.state_dict())
    for one in (policy, other):  # the count goes with it: the next update is the third, not the first
        epoch_of(one)
    assert equal(other.state_dict(), policy.state_dict())
    assert other.state_dict()["count"] == 3


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ema", {"decay": 0.9}), ("ema", {"decay": 0.9, "buffers": "copy", "start_epoch": 2}),
        ("ema", {"decay": 0.9, "buffers": "recompute"}), ("swa", {"start_epoch": 1}), ("swa", {"start_epoch": 2}),
    ],
)  # fmt: skip
def test_a_training_stopped_in_the_middle_of_an_epoch_ends_like_one_that_was_not(params, name, options, tmp_path):
    assert_resumes(params, method(name, **options), tmp_path)


@pytest.mark.parametrize("name", ["ema", "swa"])
def test_whole_numbers_among_the_parameters_are_taken_over(name):
    model = nn.Linear(2, 2)
    model.permutation = nn.Parameter(torch.tensor([1, 0]), requires_grad=False)
    policy = REGISTRY.options(name).build(model)
    with torch.no_grad():
        model.permutation += 1
    policy.after_step(model, 1)
    policy.after_epoch(model, 1, lambda: [])
    assert policy.evaluated(model).permutation.tolist() == [2, 1]


@pytest.mark.parametrize("name", ["ema", "swa", "awp"])
def test_a_warm_up_that_reaches_the_start_is_not_shared(name):
    options = REGISTRY.options(name, start_epoch=5)
    assert [options.same_until(epoch) for epoch in (4, 5, 6)] == [True, False, False]


def test_what_begins_after_the_last_epoch_costs_nothing():
    assert [share_of(10, start) for start in (1, 6, 10, 11, 13)] == [1, 0.5, 0.1, 0, 0]
