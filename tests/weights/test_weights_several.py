"""Several weight policies at once: each does what it does alone."""

import copy
import dataclasses

import pytest
import torch
from by_hand import Pair
from tiny_training import EPOCHS, assert_resumes, net, plan, splits

from sglr.config import ConfigError
from sglr.config.reader import validate
from sglr.training import fit
from sglr.weights import REGISTRY, WeightPolicy
from sglr.weights.registry import WeightOptions

AWP, EMA = {"name": "awp", "gamma": 0.05, "start_epoch": 2}, {"name": "ema", "decay": 0.9, "start_epoch": 2}
SWA = {"name": "swa", "start_epoch": 2}


def method(*parts, name: str = "several"):
    return {"objective": "at", "labels": "hard", "weights": {"name": name, "of": list(parts)}}


def test_perturbed_steps_are_averaged(params):
    """The live weights are those of awp alone, in float64 and by hand in its own tests; their average is ema's."""
    both = Pair(params, method(EMA, AWP))
    alone = Pair(params, method() | {"weights": AWP})
    average = None
    for epoch in (1, 2, 2, 3):
        assert torch.equal(both.take(epoch)[0], alone.take(epoch)[0])
        live = {name: value.clone() for name, value in alone.model.state_dict().items()}
        assert all(torch.equal(value, live[name]) for name, value in both.model.state_dict().items())
        evaluated = both.learner.weights.evaluated(both.model)
        if epoch < 2:
            assert evaluated is both.model
            continue
        average = live if average is None else {
            name: torch.lerp(old, live[name], 0.1) if old.is_floating_point() else live[name]
            for name, old in average.items()
        }  # fmt: skip
        for name, value in evaluated.state_dict().items():
            torch.testing.assert_close(value, average[name], rtol=1e-12, atol=1e-12)


def test_at_the_end_of_an_epoch_each_does_its_part(params):
    alone = fit(plan(params, method() | {"weights": SWA}), net(), *splits())
    both = fit(plan(params, method(SWA, AWP | {"start_epoch": EPOCHS, "gamma": 1e-30})), net(), *splits())
    for name, value in alone.last.items():
        torch.testing.assert_close(both.last[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("parts", [(AWP, EMA), (SWA, AWP)])
def test_an_interrupted_training_goes_on(params, tmp_path, parts):
    assert_resumes(params, method(*parts), tmp_path)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({"of": ["awp"]}, r"methods\.tested\.weights\.of: .*at least 2"),
        ({"of": ["ema", "awp", "swa"]}, r"methods\.tested\.weights: of: 'ema' and 'swa' do not go together"),
        ({"of": ["ema", "aws"]}, r"methods\.tested\.weights\.of\.1: unknown weight policy 'aws'"),
        ({"of": ["awp", {"name": "ema", "decay": 2}]}, r"weights\.of\.1\.decay"),
        ({"of": [AWP, EMA | {"start_epoch": 9}]}, r"methods\.tested\.weights\.of\.1\.start_epoch 9 comes after"),
        ({"of": ["awp", {"name": "several", "of": ["ema", "none"]}]}, "of: 'several' within 'several': name its"),
        ({"of": ["awp", AWP]}, "of: 'awp' is there twice"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_named(params, weights, said):
    with pytest.raises(ConfigError, match=said):
        plan(params, method() | {"weights": {"name": "several"} | weights})


class Another(WeightPolicy):
    """An average that its options do not tell of."""

    def evaluated(self, model):
        return copy.deepcopy(model)


class AnotherOptions(WeightOptions):
    def build(self, model):
        return Another()


def test_an_average_that_was_not_told_of_is_found_when_two_are_evaluated(params):
    params["train"]["epochs"] = 3
    chosen = plan(params, method(EMA, "none"))
    of = (REGISTRY.options("ema", start_epoch=2), AnotherOptions(name="another"))
    weights = chosen.method.weights.model_copy(update={"of": of})
    chosen = dataclasses.replace(chosen, method=chosen.method.model_copy(update={"weights": weights}))
    with pytest.raises(ConfigError, match="of several weight policies two give other weights to evaluate"):
        fit(chosen, net(), *splits())


class Seeded(WeightOptions):
    """Of a seed, and silent on its passes."""

    file: str = "{seed}"

    def for_seed(self, seed):
        return self.model_copy(update={"file": self.file.format(seed=seed)})

    def build(self, model):
        return WeightPolicy()


def test_what_is_asked_of_a_policy_is_asked_of_all():
    several = REGISTRY.options("several", of=["awp", EMA, Seeded(name="seeded")])
    assert several.for_seed(7).of[2].file == "7"
    assert several.added_passes(2, 10) is None
    assert several.averages
    assert not REGISTRY.options("several", of=["awp", "none"]).averages
    pair = REGISTRY.options("several", of=[AWP, SWA])
    assert pair.added_passes(2, 10) == (2 * 0.9 + 0.9, 2 * 0.9)
    assert pair.same_until(1)
    assert not pair.same_until(2)
    assert not REGISTRY.options("several", of=[AWP | {"start_epoch": 3}, EMA]).same_until(2)


def test_the_warm_up_is_shared_where_all_allow_it(params):
    params["warmup"] |= {"objective": "adversarial", "epochs": 1}
    params["methods"]["sglr"]["labels"]["start_epoch"] = 2
    params["methods"]["both"] = method(AWP, EMA)
    params["experiment"]["methods"] = ["at", "both"]
    validate(params)
    params["methods"]["both"] = method(AWP, EMA | {"start_epoch": 1})
    with pytest.raises(ConfigError, match=r"its weights \(several\) already differs"):
        validate(params)
