"""Trainings on a device that is not the CPU (see ``accelerator``): the methods of params.yaml, and two others."""

import dataclasses
from pathlib import Path

import pytest
import torch
from accelerator import DEVICE, accelerator
from by_hand import C
from tiny_training import assert_same, early, plan, splits

from sglr import models
from sglr.attacks.accuracy import LogitsError
from sglr.attacks.pgd import input_gradient
from sglr.config import parse
from sglr.data import Split
from sglr.objectives import InnerMaximisation
from sglr.objectives.at import AdversarialTraining, AtOptions
from sglr.training import Hooks, Interrupted, Snapshots, TrainingError, fit
from sglr.training.learner import Learner
from sglr.training.step import take

METHODS = parse((Path(__file__).parents[2] / "params.yaml").read_text())["methods"] | {
    "several": {"objective": "at", "labels": "hard", "weights": {"name": "several", "of": ["awp", "ema"]}},
    "strayed": {"objective": "at", "labels": "hard", "weights": "none"},
}


class Strayed(AdversarialTraining):
    """An attack of its own: a step from beyond the ball."""

    def attack(self, inner: InnerMaximisation) -> torch.Tensor:
        noisy = inner.random_start(dataclasses.replace(inner.threat, eps=3 * inner.threat.eps))
        gradient = input_gradient(inner.model, noisy, inner.y, inner.loss)
        return (noisy + inner.threat.step(gradient, inner.threat.eps)).clamp(0, 1)


class StrayedOptions(AtOptions):
    """No options."""

    def build(self) -> Strayed:
        return Strayed()


def network() -> torch.nn.Module:
    options = {"channels": (4, 8), "hidden": 8, "normalization": {"mean": [0.4], "std": [0.2]}}
    return models.build("small_cnn", num_classes=C, shape=(1, 4, 4), generator_seed=0, **options)


def moved(split: Split) -> Split:
    return Split(*(values.to(DEVICE) for values in (split.x, split.given, split.true)))


@pytest.fixture(params=METHODS)
def chosen(request, params):
    """The plan of a method, with augmentation."""
    params["data"]["augment"] = {"crop_padding": 1, "flip": True, "more": [{"name": "cutout", "size": 2}]}
    made = plan(params, early(METHODS[request.param]))
    if request.param != "strayed":
        return made
    method = made.method.model_copy(update={"objective": StrayedOptions(name="strayed")})
    return dataclasses.replace(made, method=method)


def test_every_method_trains_there_as_it_does_here(chosen):
    expected = fit(chosen, network(), *splits())
    with accelerator():
        found = fit(chosen, network().to(DEVICE), *map(moved, splits()))
    assert_same(found, expected)


def test_no_step_waits_for_the_device(chosen):
    with accelerator() as device:
        train = moved(splits()[0])
        learner = Learner.build(chosen, network().to(DEVICE), train.given, C)
        index = torch.arange(8, device=DEVICE)
        device.waits.clear()
        for epoch in (1, 2, 3):
            take(chosen, learner, train.images(index), train.given[index], index, epoch, 0)
    assert device.waits == []


@pytest.mark.parametrize("chosen", ["sglr", "awp_sglr", "at_ema", "at_swa", "trades_sat"], indirect=True)
def test_interrupted_it_ends_there_like_one_that_was_not(chosen, tmp_path):
    expected = fit(chosen, network(), *splits())
    calls = iter(range(1, 100))
    with accelerator():
        there = [moved(split) for split in splits()]
        kept = Snapshots(tmp_path)
        with pytest.raises(Interrupted):
            fit(chosen, network().to(DEVICE), *there, hooks=Hooks(kept, should_stop=lambda: next(calls) == 5))
        found = fit(chosen, network().to(DEVICE), *there, hooks=Hooks(kept))
    assert_same(found, expected)


def test_an_epoch_waits_as_often_however_many_steps_it_has(params):
    def waits(batch_size: int) -> int:
        one = plan(params, early(METHODS["sglr"]), epochs=2, batch_size=batch_size)
        with accelerator() as device:
            fit(one, network().to(DEVICE), *map(moved, splits()))
        return len(device.waits)

    assert waits(4) == waits(12)


def test_what_the_accelerator_refuses_and_notes():
    """It would be worth nothing if it took everything."""
    with accelerator() as device:
        there, here = torch.ones(3, device=DEVICE), torch.ones(3)
        assert there.device == DEVICE
        with pytest.raises(RuntimeError, match="two devices"):
            there + here
        assert device.waits == []
        for number, wait in enumerate(
            (there.sum().item, there.cpu, lambda: there[there > 0], lambda: here.to(DEVICE), lambda: there[[0, 1]])
        ):
            wait()
            assert len(device.waits) == number + 1
        assert torch.equal((there * 2).cpu(), here * 2)


def test_logits_that_are_not_finite_end_it_there_as_here(params, monkeypatch):
    def broken(*arguments):
        raise LogitsError("those of 3 of 10 images are NaN")

    monkeypatch.setattr("sglr.training.history.finite_logits", broken)
    with accelerator(), pytest.raises(TrainingError, match="after epoch 1 those of 3 of 10 images are NaN"):
        fit(plan(params, early(METHODS["at"])), network().to(DEVICE), *map(moved, splits()))
