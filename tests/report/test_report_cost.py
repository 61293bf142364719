"""The passes that the report counts, held against a training step that is watched."""

from importlib import import_module
from itertools import product

import pytest
import torch
from torch import nn

from sglr import models
from sglr.config.reader import validate
from sglr.config.sections import Method
from sglr.labels.hard import HardOptions
from sglr.labels.registry import NEVER, NaturalForward
from sglr.objectives.at import AdversarialTraining
from sglr.report.cost import cost, passes
from sglr.training.learner import Learner
from sglr.training.plan import Plan
from sglr.training.step import take
from sglr.weights.none import NoneOptions
from sglr.weights.registry import WeightOptions

STEPS, EPOCHS = 3, 4
OBJECTIVES = ({"name": "at"}, {"name": "trades"}, {"name": "mart"}, {"name": "standard"})
LABELS = (
    {"name": "hard"}, {"name": "hard", "natural_forward_from": 3}, {"name": "smoothing", "smoothing": 0.1},
    {"name": "refinement", "start_epoch": 3}, {"name": "refinement", "start_epoch": 2, "natural_bn": "eval"},
    {"name": "ensembling", "start_epoch": 2}, {"name": "self_adaptive", "start_epoch": 3},
    {"name": "self_distillation"},
)  # fmt: skip
# Objectives that each of LABELS goes with: refinement and ensembling need adversarial predictions, natural_bn eval and
# the control a step that does not forward natural images anyway, self-adaptive training is defined on trades.
ALLOWED = (4, 1, 4, 3, 1, 3, 1, 4)
WEIGHTS = (
    {"name": "none"}, {"name": "awp", "start_epoch": 2}, {"name": "ema"}, {"name": "swa", "start_epoch": 4},
    {"name": "several", "of": [{"name": "swa", "start_epoch": 3}, {"name": "awp", "start_epoch": 2}]},
)  # fmt: skip


def method(params, objective, labels, weights):
    """The config of a study of this combination as ``own``, beside ``at``; None for one that is refused."""
    params["train"] |= {"epochs": EPOCHS, "schedule": {"name": "constant"}, "keep_epochs": []}
    params["train"]["attack"]["steps"] = STEPS
    params["methods"] |= {"own": {"objective": objective, "labels": labels, "weights": weights}}
    params["experiment"]["methods"] = ["at", "own"]
    try:
        return validate(params)
    except ValueError:
        return None


class Counter:
    """Forward and backward passes through modules, as passes of the whole batch."""

    def __init__(self) -> None:
        self.forwards = self.backwards = 0

    def watch(self, module: nn.Module) -> None:
        module.register_forward_hook(self._forward)

    def _forward(self, module, inputs, logits) -> None:
        self.forwards += 1
        if logits.requires_grad:
            logits.register_hook(self._backward)

    def _backward(self, gradient) -> None:
        self.backwards += 1


def watched(config, name) -> tuple[float, float]:
    """Forward and backward passes per epoch, from a real step in each epoch."""
    plan = Plan.training(config, config.methods[name], 0)
    model = models.build("small_cnn", num_classes=10, shape=(1, 8, 8), channels=[2, 2], hidden=4, generator_seed=0)
    x, y = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(6)
    learner, counter = Learner.build(plan, model, y, 10), Counter()
    policies = getattr(learner.weights, "_policies", [learner.weights])
    copies = [getattr(policy, name, None) for policy in policies for name in ("_proxy", "_average")]
    for module in filter(None, (learner.model, learner.networks.folded, *copies)):
        counter.watch(module)
    for epoch in range(1, EPOCHS + 1):
        take(plan, learner, x, y, torch.arange(6), epoch, 0)
        learner.weights.after_epoch(learner.model, epoch, lambda: iter([x]))
    return counter.forwards / EPOCHS, counter.backwards / EPOCHS


@pytest.mark.parametrize("weights", WEIGHTS, ids=lambda options: options["name"])
def test_passes_are_those_that_training_makes(params, weights):
    seen = [0] * len(LABELS)
    for objective, (position, labels) in product(OBJECTIVES, enumerate(LABELS)):
        config = method(params, objective, labels, weights)
        if config is not None:
            found = passes(config, "own")
            assert (found["forwards"], found["backwards"]) == watched(config, "own"), (objective, labels, weights)
            seen[position] += 1
    assert tuple(seen) == ALLOWED


@pytest.mark.parametrize(("room", "watched"), [("objectives", OBJECTIVES), ("labels", LABELS), ("weights", WEIGHTS)])
def test_every_registered_component_is_among_them(room, watched):
    assert {options["name"] for options in watched} == set(import_module(f"sglr.{room}").REGISTRY.names())


def test_the_control_costs_what_refinement_costs(params):
    refined = method(params, {"name": "at"}, {"name": "refinement", "start_epoch": 3}, {"name": "none"})
    control = method(params, {"name": "at"}, {"name": "hard", "natural_forward_from": 3}, {"name": "none"})
    assert cost(control)[1] == cost(refined)[1]
    assert cost(control)[1]["relative"] == 8.5 / 8


class Curious(HardOptions):
    """A policy that somebody adds, which looks at the natural images; ``said``: what it says of that."""

    said: NaturalForward | None = None

    def natural_forward(self) -> NaturalForward | None:
        return self.said


def test_a_new_policy_is_counted_by_what_it_says(params):
    config = method(params, {"name": "at"}, {"name": "hard"}, {"name": "none"})
    for objective, said, forward in (
        ("at", NEVER, 1), ("at", NaturalForward(2), 1.75), ("at", NaturalForward(5), 1),
        ("trades", NaturalForward(2), 2), ("trades", NaturalForward(2, before_attack=True), 2.75),
    ):  # fmt: skip
        own = {"objective": objective, "labels": Curious(name="curious", said=said), "weights": "none"}
        assert passes(with_own(config, own), "own")["forward"] == forward
    silent = {"objective": "at", "labels": Curious(name="curious"), "weights": "none"}
    assert cost(with_own(config, silent))[1] == {"method": "own", "passes": None, "relative": None}


def with_own(config, own):
    return config.model_copy(update={"methods": config.methods | {"own": Method.model_validate(own)}})


def test_a_method_is_set_against_the_baseline(params):
    config = method(params, {"name": "at"}, {"name": "refinement", "start_epoch": 3}, {"name": "none"})
    at, own = cost(config)
    assert at["passes"] == {
        "attack_forward": 3, "attack_backward": 3, "forward": 1, "backward": 1, "forwards": 4, "backwards": 4,
    }  # fmt: skip
    # Half of the epochs refine, each with one forward more.
    assert (own["passes"]["forward"], at["relative"], own["relative"]) == (1.5, 1.0, 8.5 / 8)


def test_an_objective_or_weights_that_do_not_tell_their_passes_are_not_counted(params, monkeypatch):
    config = method(params, {"name": "at"}, {"name": "hard"}, {"name": "none"})
    assert passes(config, "own") is not None
    with monkeypatch.context() as patch:
        patch.setattr(AdversarialTraining, "forwards_for_attack", None)
        assert passes(config, "own") is None
    with monkeypatch.context() as patch:
        patch.setattr(AdversarialTraining, "attack", lambda self, inner: inner.x)  # of its own, which tells nothing
        assert passes(config, "own") is None
        patch.setattr(AdversarialTraining, "gradients_for_attack", lambda self, steps: 1)
        told = passes(config, "own")
        assert told is not None
        assert (told["attack_forward"], told["attack_backward"], told["forwards"], told["backwards"]) == (1, 1, 2, 2)
    monkeypatch.setattr(NoneOptions, "added_passes", WeightOptions.added_passes)
    assert passes(config, "own") is None
