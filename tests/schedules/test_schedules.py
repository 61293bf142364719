"""Learning-rate schedules at points worked by hand, what they refuse, and one of one's own."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch

import sglr
from sglr.config import ConfigError
from sglr.config.reader import validate
from sglr.schedules import REGISTRY, ScheduleOptions

HALVES = [step / 2 for step in range(8)]  # four epochs of two steps


def rates(name: str, **options: object) -> list[float]:
    schedule = REGISTRY.options(name, **options)
    return [schedule.rate(progress, 4) for progress in HALVES]


def test_step_drops_at_the_start_of_its_milestones():
    assert rates("step", milestones=[2, 4], factor=0.1) == pytest.approx([1, 1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01])
    assert rates("step", milestones=[1], factor=0.5) == [0.5] * 8
    assert rates("step", milestones=[], factor=0.5) == rates("step", milestones=[5], factor=0.5) == [1] * 8


def test_cosine_falls_along_half_a_cosine():
    root = math.sqrt(0.5)
    eighth, three_eighths = math.sqrt((1 + root) / 2), math.sqrt((1 - root) / 2)
    cosines = [1, eighth, root, three_eighths, 0, -three_eighths, -root, -eighth]
    assert rates("cosine") == pytest.approx([(1 + cosine) / 2 for cosine in cosines])
    assert REGISTRY.options("cosine").rate(4, 4) == 0


def test_cosine_may_rise_first():
    """Over one of four epochs; then a third of half a cosine in each."""
    falls = [(1 + math.cos(math.pi * done / 3)) / 2 for done in (0, 0.5, 1, 1.5, 2, 2.5)]
    assert rates("cosine", rise_epochs=1.0) == pytest.approx([0, 0.5, *falls])
    assert falls[2] == pytest.approx(0.75)
    assert REGISTRY.options("cosine", rise_epochs=1.0).rate(4, 4) == pytest.approx(0)


@pytest.mark.parametrize("rise", [0, 0.75, 3])
def test_linear_rises_to_one_and_falls_to_zero(rise: float):
    corners = ([rise, 4], [1, 0]) if rise == 0 else ([0, rise, 4], [0, 1, 0])
    assert rates("linear", rise_epochs=rise) == pytest.approx(np.interp(HALVES, *corners), abs=1e-15)
    assert REGISTRY.options("linear", rise_epochs=rise).rate(4, 4) == 0


def test_constant_is_one():
    assert rates("constant") == [1] * 8


def test_a_word_is_a_schedule_without_options(params: dict):
    for name in ("cosine", "constant"):
        params["train"]["schedule"] = name
        assert validate(params).train.schedule == REGISTRY.options(name)


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_a_rise_must_end_before_the_last_epoch_does(name: str):
    rising = REGISTRY.options(name, rise_epochs=3.5)
    rising.check_epochs(4)
    with pytest.raises(ValueError, match=r"^schedule\.rise_epochs 3\.5 must be less than the 3 epochs$"):
        rising.check_epochs(3)


@pytest.fixture
def mine() -> Iterator[None]:
    """A schedule as a script has it, forgotten afterwards."""

    @REGISTRY.register("mine")
    class MineOptions(ScheduleOptions):
        """The full rate in the first epoch, ``rest`` of it later."""

        rest: float = 0.5

        def rate(self, progress: float, epochs: int) -> float:
            return 1.0 if progress < 1 else self.rest

        def check_epochs(self, epochs: int) -> None:
            if epochs < 2:
                raise ValueError(f"schedule.rest {self.rest:g} needs a second epoch")

    yield
    del REGISTRY._types["mine"]


def trained_with(schedule: object, epochs: int = 2) -> list[float]:
    """The rates of the epochs of a small training."""
    small = {"train.epochs": epochs, "train.batch_size": 20, "train.attack.steps": 1, "model.channels": [2, 4]}
    changes = small | {"train.schedule": schedule, "train.optimizer.lr": 0.2}
    x, y = torch.rand(40, 1, 6, 6, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 4
    found = sglr.train(x, y, method="at", threat=sglr.threat.Linf(0.1), changes=changes)
    return [row["lr"] for row in found.history]


@pytest.mark.usefixtures("mine")
def test_a_schedule_of_ones_own():
    assert trained_with("mine") == trained_with({"name": "mine"}) == [0.2, 0.1]
    assert trained_with({"name": "mine", "rest": 0.25}, epochs=3) == [0.2, 0.05, 0.05]
    with pytest.raises(ConfigError, match=r"train: schedule\.rest 0\.5 needs a second epoch"):
        trained_with("mine", epochs=1)
    with pytest.raises(ConfigError, match=r"train\.schedule\.rst: unknown key\. Did you mean 'rest'\?"):
        trained_with({"name": "mine", "rst": 0.25})
    with pytest.raises(sglr.UserError, match=r"'mine' multiplies the learning rate by -1\.0 in epoch 2, batch 1 of 2"):
        trained_with({"name": "mine", "rest": -1.0})


def test_a_new_name_alone_leaves_options_that_are_not_its_own():
    with pytest.raises(
        ConfigError, match=r"train\.schedule\.milestones: unknown key\. Known here: name, rise_epochs\."
    ):
        sglr.train(
            torch.rand(4, 1, 6, 6), torch.arange(4), threat=sglr.threat.Linf(0.1),
            changes={"train.schedule.name": "cosine"},
        )  # fmt: skip
