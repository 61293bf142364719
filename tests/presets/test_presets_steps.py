"""Every method of every preset through the real config and loop: a step before and a step after its ``start_epoch``."""

import math

import pytest
import torch

from sglr import models
from sglr.config import parse
from sglr.config.reader import validate
from sglr.data import Split
from sglr.training import Plan, fit

N = 4
SHAPES = {"digits": (1, 8, 8)}
CLASSES = {"cifar100": 100}
# Narrow, but with the batch norm, blocks and shortcuts of the large ones.
NARROW = {"name": "wrn", "depth": 10, "width": 1}


def shrink(values):
    """A preset's values for two epochs of one step each: whatever begins later than epoch 1 begins with epoch 2."""
    train, methods = values["train"], values["methods"]
    if values["model"]["name"] != "small_cnn":
        values["model"] = {**NARROW, "normalization": values["model"]["normalization"]}
    if values["warmup"]["objective"] == "adversarial":
        values["warmup"]["epochs"] = 1
    train |= {"epochs": 2, "batch_size": N, "keep_epochs": []}
    train["schedule"]["milestones"] = [2]
    train["attack"]["steps"] = train["selection"]["steps"] = 1
    for policy in (method[key] for method in methods.values() for key in ("labels", "weights")):
        for key in ("start_epoch", "natural_forward_from"):
            if isinstance(policy, dict) and policy.get(key, 1) > 1:
                policy[key] = 2


def images(source, generator):
    """Random images with half of the given labels wrong."""
    classes = CLASSES.get(source, 10)
    x = torch.rand(N, *SHAPES.get(source, (3, 32, 32)), generator=generator)
    true = torch.randint(0, classes, (N,), generator=generator)
    given = torch.where(torch.arange(N) < N // 2, (true + 1) % classes, true)
    return Split(x, given, true), classes


def test_every_method_takes_a_step_on_both_sides_of_its_start(preset):
    _, text = preset
    values = parse(text)
    real = validate(values)
    shrink(values)
    config = validate(values)
    data, classes = images(config.data.source.name, torch.Generator().manual_seed(0))
    validation = data if config.data.validation_size else None

    def untrained():
        return models.build(config.model, num_classes=classes, shape=tuple(data.x.shape[1:]), generator_seed=0)

    shared = fit(Plan.warm_up(config, 0), untrained(), data, validation)
    adversarial = config.warmup.objective == "adversarial"
    for method in config.experiment.methods:
        chosen, model = config.methods[method], untrained()
        start = None
        if chosen.start == "warmup":
            model.load_state_dict(shared.last)
            start = shared.state if adversarial else None
        result = fit(Plan.training(config, chosen, 0), model, data, validation, continue_from=start)
        rows, base = result.history, real.train.optimizer.lr
        assert [row["epoch"] for row in rows] == [1, 2], method
        assert [row["lr"] for row in rows] == pytest.approx([base, base * 0.1]), method
        assert all(math.isfinite(row["train/loss"]) for row in rows), method
        assert (rows[-1]["val/pgd"] is None) == (real.data.validation_size == 0), method
        assert (result.best is None) == (real.data.validation_size == 0), method
        assert any(not torch.equal(result.last[key], shared.last[key]) for key in shared.last), method
        check_targets(method, chosen.labels, result.trace, data, classes)
        if chosen.labels.name == "ensembling":
            assert (result.labels["last"]["p"].sum(1) > 0).all(), method


def check_targets(method, labels, trace, data, classes):
    """Hard until the start; then the given label keeps the share that one update leaves it."""
    given = data.given[trace["index"]]
    onehot = torch.nn.functional.one_hot(given, classes).float()
    first, second = trace["p"]
    torch.testing.assert_close(second.sum(1), torch.ones(N), msg=method)
    if labels.name == "refinement":
        assert labels.start_epoch == 2, method
        assert torch.equal(first, onehot), method
        kept = second.gather(1, given[:, None])
        assert (kept >= labels.alpha - 1e-6).all(), method
        assert (kept < 1).all(), method
    elif labels.name == "self_distillation":  # from the first epoch on
        assert first.max() < 1, method
        assert torch.equal(second.argmax(1), given), method
    elif labels.name == "ensembling":  # what it believes begins with its first prediction
        assert torch.equal(first, onehot), method
        assert second.max() < 1, method
    else:
        assert torch.equal(first, second), method
        assert torch.equal(first.argmax(1), given), method
