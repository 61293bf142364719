"""The passes that the report counts, held against a training step that is watched."""

from itertools import product

import pytest
import torch
from torch import nn

from sglr import models
from sglr.config.reader import validate
from sglr.report.cost import cost, passes
from sglr.training.plan import Plan
from sglr.training.step import Learner, take

STEPS, EPOCHS = 3, 4
OBJECTIVES = ({"name": "at"}, {"name": "trades"}, {"name": "mart"}, {"name": "standard"})
LABELS = (
    {"name": "hard"}, {"name": "smoothing", "factor": 0.1}, {"name": "refinement", "start_epoch": 3},
    {"name": "ensembling", "start_epoch": 2}, {"name": "self_adaptive", "start_epoch": 3},
)  # fmt: skip
WEIGHTS = ({"name": "none"}, {"name": "awp", "start_epoch": 2}, {"name": "ema"}, {"name": "swa", "start_epoch": 4})


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
    proxies = [learner.weights._proxy] if hasattr(learner.weights, "_proxy") else []
    averages = [learner.weights._average] if hasattr(learner.weights, "_average") else []
    for module in (learner.model, *filter(None, [learner.networks.folded]), *proxies, *averages):
        counter.watch(module)
    for epoch in range(1, EPOCHS + 1):
        take(plan, learner, x, y, torch.arange(6), epoch, 0)
        learner.weights.after_epoch(learner.model, epoch, lambda: iter([x]))
    return counter.forwards / EPOCHS, counter.backwards / EPOCHS


@pytest.mark.parametrize("weights", WEIGHTS, ids=lambda options: options["name"])
def test_passes_are_those_that_training_makes(params, weights):
    seen = 0
    for objective, labels in product(OBJECTIVES, LABELS):
        config = method(params, objective, labels, weights)
        if config is not None:
            found = passes(config, "own")
            assert (found["forwards"], found["backwards"]) == watched(config, "own"), (objective, labels, weights)
            seen += 1
    assert seen > 8


def test_a_method_is_set_against_the_baseline(params):
    config = method(params, {"name": "at"}, {"name": "refinement", "start_epoch": 3}, {"name": "none"})
    at, own = cost(config)
    assert at["passes"] == {
        "attack_forward": 3, "attack_backward": 3, "forward": 1, "backward": 1, "forwards": 4, "backwards": 4,
    }  # fmt: skip
    # Half of the epochs refine, each with one forward more.
    assert (own["passes"]["forward"], at["relative"], own["relative"]) == (1.5, 1.0, 8.5 / 8)
