"""State of the label policies: through a file and back, stopped in the middle, continued twice."""

import copy

import pytest
import torch
from by_hand import C, N, Pair, learner
from tiny_training import assert_resumes, assert_same, equal, net, plan, splits

from sglr import files
from sglr.config.reader import validate
from sglr.training import Plan, fit
from sglr.training.step import take

STATEFUL = {
    "refinement": ("at", {"name": "refinement", "start_epoch": 2, "refinement_ratio": 0.7, "ratio_schedule": "linear"}),
    "ensembling": ("at", {"name": "ensembling", "start_epoch": 2, "ramp_epochs": 1}),
    "self_adaptive": ("trades", {"name": "self_adaptive", "start_epoch": 2}),
    "self_distillation": ("at", {"name": "self_distillation"}),
}


@pytest.mark.parametrize("name", STATEFUL)
def test_state_goes_through_a_file_and_back(params, name, tmp_path):
    objective, labels = STATEFUL[name]
    pair = Pair(params, {"objective": objective, "labels": labels, "weights": "none"})
    pair.take(2)
    policy = pair.learner.labels
    files.save_state(tmp_path / "state", policy.state_dict())
    other = pair.plan.method.labels.build(pair.y, C, pair.plan.epochs)
    assert not equal(other.state_dict(), policy.state_dict())
    other.load_state_dict(files.load_state(tmp_path / "state"))
    assert equal(other.state_dict(), policy.state_dict())
    every = torch.arange(len(pair.y))
    assert torch.equal(other.targets(3, every), policy.targets(3, every))
    smaller = pair.plan.method.labels.build(pair.y[1:], C, pair.plan.epochs)
    with pytest.raises(ValueError, match="label table of shape"):
        smaller.load_state_dict(policy.state_dict())


@pytest.mark.parametrize("name", STATEFUL)
def test_a_restored_policy_shares_nothing_with_what_it_was_restored_from(params, name):
    objective, labels = STATEFUL[name]
    pair = Pair(params, {"objective": objective, "labels": labels, "weights": "none"})
    pair.take(2)
    state = pair.learner.labels.state_dict()
    other = pair.plan.method.labels.build(pair.y, C, pair.plan.epochs)
    other.load_state_dict(state)
    kept = {key: value.clone() if isinstance(value, torch.Tensor) else value for key, value in state.items()}
    second = learner(pair.plan, copy.deepcopy(pair.model), pair.y)
    second.labels = other
    take(pair.plan, second, pair.x, pair.y, torch.arange(N), 3, 0)
    assert not torch.equal(other.state_dict()["p"], kept["p"])
    assert equal(state, kept)


@pytest.mark.parametrize(
    ("objective", "labels"),
    [
        *STATEFUL.values(),
        ("mart", {"name": "refinement", "start_epoch": 1}),
        ("trades", {"name": "ensembling", "start_epoch": 2, "ramp_epochs": 1}),
        ("at", {"name": "hard", "natural_forward_from": 2}),
        ("at", {"name": "smoothing"}),
    ],
    ids=lambda value: value if isinstance(value, str) else value["name"],
)
def test_a_training_stopped_in_the_middle_of_an_epoch_ends_like_one_that_was_not(params, objective, labels, tmp_path):
    assert_resumes(params, {"objective": objective, "labels": labels, "weights": "none"}, tmp_path)


def test_two_trainings_that_continue_one_warm_up_in_memory_do_not_meet(params):
    """The state a warm-up hands on is as it was after the first of them."""
    params["warmup"] |= {"objective": "adversarial", "epochs": 1}
    labels = {"name": "refinement", "start_epoch": 2}
    chosen = plan(params, {"objective": "at", "labels": labels, "weights": "none"})
    model = net()
    warm = fit(Plan.warm_up(validate(params), 1), model, *splits())
    # The first goes on with the warm-up's own model, the second with one of its own.
    one, other = (fit(chosen, each, *splits(), continue_from=warm.state) for each in (model, net()))
    assert len(warm.state["progress"]["history"]) == 1
    assert not torch.equal(warm.state["model"]["conv.weight"], model.conv.weight)
    assert_same(one, other)
    assert len(one.history) == 3
