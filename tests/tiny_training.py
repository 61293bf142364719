"""Trainings of a moment: three epochs of three batches on random images, whole or interrupted in the middle."""

from pathlib import Path
from typing import Any

import pytest
import torch
from by_hand import C, Net
from torch import Tensor

from sglr.config.reader import validate
from sglr.data import Split
from sglr.training import Hooks, Interrupted, Plan, Snapshots, TrainingResult, fit

EPOCHS = 3


def plan(params: dict, method: dict, **train: Any) -> Plan:
    """The training of a method with three epochs of three batches."""
    params["methods"]["tested"] = method
    params["experiment"]["methods"] = ["tested"]
    params["train"] |= {"epochs": EPOCHS, "batch_size": 8} | train
    params["train"]["attack"]["steps"] = params["train"]["selection"]["steps"] = 2
    config = validate(params)
    return Plan.training(config, config.methods["tested"], seed=1)


def early(method: dict) -> dict:
    """A method as params.yaml declares it, with everything that begins later beginning with epoch 2."""
    begun = {
        key: {**policy, **{name: 2 for name in ("start_epoch", "natural_forward_from") if name in policy}}
        for key, policy in method.items()
        if isinstance(policy, dict)
    }
    return {**method, **begun}


def splits(dtype: torch.dtype = torch.float32) -> tuple[Split, Split]:
    """24 training and 10 validation examples, the same each time; a third of the given labels is wrong."""
    generator = torch.Generator().manual_seed(5)
    x = torch.rand(34, 1, 4, 4, generator=generator, dtype=dtype)
    true = torch.randint(0, C, (34,), generator=generator)
    given = torch.where(torch.arange(34) % 3 == 0, (true + 1) % C, true)
    return Split(x[:24], given[:24], true[:24]), Split(x[24:], true[24:], true[24:])


def net(dtype: torch.dtype = torch.float32) -> Net:
    """The same untrained network each time."""
    torch.manual_seed(7)
    return Net().to(dtype)


def assert_resumes(params: dict, method: dict, folder: Path, stop_at: int = 5) -> None:
    """A training stopped at its ``stop_at``-th pause (one after each step) and continued by new objects from the file
    it wrote ends exactly like one that was not."""
    chosen = plan(params, method)
    whole = fit(chosen, net(), *splits())
    calls = iter(range(1, 100))
    with pytest.raises(Interrupted):
        fit(chosen, net(), *splits(), hooks=Hooks(Snapshots(folder), should_stop=lambda: next(calls) == stop_at))
    torch.manual_seed(99)  # whatever the new process starts with
    resumed = fit(chosen, Net(), *splits(), hooks=Hooks(Snapshots(folder)))
    assert_same(resumed, whole)


def assert_same(one: TrainingResult, other: TrainingResult) -> None:
    assert one.history == other.history
    assert one.best_epoch == other.best_epoch
    for weights, expected in ((one.last, other.last), (one.best, other.best), (one.trace, other.trace)):
        assert weights is not None
        assert expected is not None
        assert weights.keys() == expected.keys()
        assert all(torch.equal(weights[name], value) for name, value in expected.items())
    assert torch.equal(one.refined, other.refined)


def equal(one: Any, other: Any) -> bool:
    """Whether two nested states hold the same values."""
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(value, other[key]) for key, value in one.items())
    return bool(one == other)
