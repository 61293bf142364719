"""Fingerprints: the same for what computes the same, in another process too, and others for what does not."""

import collections
import dataclasses
import enum
import functools
import logging
import os
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sglr.on_arrays.fingerprint import OpaqueError, fingerprint


@dataclasses.dataclass
class Setting:
    scale: float
    names: frozenset[str] = frozenset({"a", "b", "c"})


class Slotted:
    __slots__ = ("scale",)

    def __init__(self, scale: float) -> None:
        self.scale = scale


class Mode(enum.Enum):
    ONE = 1
    TWO = 2


def through_a_global(value: Any) -> Any:
    """A function as scripts and notebooks write it; what it calls is looked up when it runs."""
    names: dict[str, Any] = {"network": value, "torch": torch, "unused": threading.Lock()}
    exec("def called(x):\n    return torch.relu(next(f(x) for f in [network]))", names)
    return names["called"]


def scaled_by(scale: float) -> Any:
    return lambda x: scale * x


def linear(weight: float) -> nn.Linear:
    layer = nn.Linear(2, 2)
    nn.init.constant_(layer.weight, weight)
    nn.init.zeros_(layer.bias)
    return layer


def holding(value: Any) -> nn.Module:
    model = linear(1.0)
    model.held = value
    return model


def hooked(scale: float) -> nn.Module:
    model = linear(1.0)
    model.register_forward_hook(functools.partial(lambda scale, module, inputs, logits: scale * logits, scale))
    return model


def scripted(weight: float) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(nn.Sequential(linear(weight)))


def traced(weight: float) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.trace(nn.Sequential(linear(weight)), torch.zeros(1, 2))


MAKERS = {
    "weights": linear,
    "script": scripted,
    "trace": traced,
    "ensemble in a list": lambda value: holding([linear(value), linear(2.0)]),
    "number": holding,
    "NumPy number": lambda value: holding(np.float32(value)),
    "array": lambda value: holding(np.array([value])),
    "array of objects": lambda value: holding(np.array([value, "a"], dtype=object)),
    "dataclass": lambda value: holding(Setting(value)),
    "slots": lambda value: holding(Slotted(value)),
    "set": lambda value: holding({value, 7.0, 8.0}),
    "deque": lambda value: holding(collections.deque([value])),
    "enumeration": lambda value: holding(Mode.ONE if value == 1 else Mode.TWO),
    "closure": lambda value: holding(scaled_by(value)),
    "default": lambda value: holding(functools.partial(max, value)),
    "network in a global": lambda value: holding(through_a_global(linear(value))),
    "number in a global": lambda value: holding(through_a_global(value)),
    "method of a tensor": lambda value: holding(torch.full((2,), value).add),
    "function of a package": lambda value: holding([torch.nn.functional.interpolate, functools.reduce, value]),
    "hook": hooked,
    "logger": lambda value: holding((logging.getLogger("sglr.test"), value)),
    "generator": lambda value: holding(torch.Generator().manual_seed(int(value))),
    "LSTM": lambda value: holding([nn.LSTM(1, 1, device="meta").state_dict().keys(), value]),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_equal_models_are_alike_and_others_are_not(make):
    assert fingerprint(make(1.0)) == fingerprint(make(1.0))
    assert fingerprint(make(1.0)) != fingerprint(make(2.0))


@pytest.mark.slow
def test_it_is_the_same_in_another_process():
    """Where sets of texts have another order, and objects other addresses."""
    made = "*[fingerprint(make(1.0)) for make in MAKERS.values()]"
    run = [sys.executable, "-c", f"from test_on_arrays_fingerprint import MAKERS, fingerprint; print({made})"]
    where = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(run, cwd=Path(__file__).parent, env=where, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [fingerprint(make(1.0)) for make in MAKERS.values()]


def test_wrappers_change_nothing_and_cycles_end():
    model = linear(1.0)
    assert fingerprint(nn.DataParallel(model)) != fingerprint(nn.Sequential(model))
    model.held = [model]
    assert fingerprint(model) == fingerprint(model)
    lstm = nn.LSTM(2, 2)
    assert fingerprint(lstm) == fingerprint(lstm)
    assert fingerprint(torch.compile(lstm)) == fingerprint(torch.compile(lstm))


def test_whether_equal_constants_are_one_object_does_not_matter():
    pair = (1, 2.5)
    other = tuple([1, 2.5])  # noqa: C409 (another object)
    assert pair is not other
    assert fingerprint([pair, pair]) == fingerprint([pair, other])


def test_equal_texts_in_another_split_are_others():
    assert len({fingerprint("ab", "c"), fingerprint("a", "bc"), fingerprint(["ab", "c"]), fingerprint("abc")}) == 4
    assert fingerprint(1) != fingerprint(True) != fingerprint("1")


def test_what_hides_what_it_holds_is_refused():
    with pytest.raises(OpaqueError, match=r"^_thread\.lock$"):
        fingerprint(holding(threading.Lock()))


def test_what_is_made_to_tell_of_a_value_is_not_taken_for_another():
    """Tensors and lists made on the way are gone before the next are made, perhaps in the same place."""
    alike = [
        fingerprint([torch.Generator().manual_seed(seed) for seed in (*range(20), last)])
        == fingerprint([torch.Generator().manual_seed(seed) for seed in (*range(20), last + 1)])
        for last in range(50, 60)
    ]
    assert not any(alike)
    arrays = [np.array([[number], {}], dtype=object) for number in range(40)]
    assert fingerprint(arrays) != fingerprint([*arrays[:-1], np.array([[99], {}], dtype=object)])


def test_how_a_tensor_lies_in_memory_does_not_matter():
    every_second = torch.arange(6.0)[::2]
    assert fingerprint(every_second) == fingerprint(every_second.clone())


def test_the_same_bytes_of_another_type_are_others():
    assert fingerprint(torch.zeros(3)) != fingerprint(torch.zeros(3, dtype=torch.int32))


def test_defaults_of_keywords_count():
    def made(by):
        def scaled(x, *, factor=by):
            return x * factor

        return scaled

    assert fingerprint(made(1)) == fingerprint(made(1))
    assert fingerprint(made(1)) != fingerprint(made(2))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script. is deprecated")
def test_scripted_networks_are_told_apart_by_their_statistics():
    one, same, other = (torch.jit.script(nn.BatchNorm2d(2).eval()) for _ in range(3))
    other.running_mean.fill_(1.0)
    assert fingerprint(one) == fingerprint(same) != fingerprint(other)
