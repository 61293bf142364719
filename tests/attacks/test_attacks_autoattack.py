"""AutoAttack on a model that stops gradients, and without the package it comes from."""

import importlib.util

import pytest
import torch
from torch import nn

from sglr.attacks import REGISTRY
from sglr.attacks.accuracy import require_allowed
from sglr.attacks.autoattack import autoattack, captured_warnings
from sglr.config import ConfigError
from sglr.threat import Linf


class Stopped(nn.Module):
    """A linear classifier behind a layer that gradients do not pass."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        return self.head(x.detach().flatten(1))


def test_logits_without_a_gradient_are_warned_of_and_attacked_all_the_same():
    model, x = Stopped().eval(), torch.rand(12, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    y = model(x).argmax(1)
    with captured_warnings() as warnings:
        x_adv = autoattack(model, x, y, threat=Linf(0.3), seed=0)
    require_allowed(x_adv, x, Linf(0.3))
    assert any("no gradient at the picture" in warning for warning in warnings)
    # The black-box member needs no gradient.
    assert (model(x_adv).argmax(1) != y).any()


@pytest.mark.parametrize("name", ["autoattack", "square"])
def test_without_its_package_nothing_is_begun(monkeypatch, name):
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    with pytest.raises(ConfigError, match="pip install pyautoattack, or take the attack out"):
        REGISTRY.options(name).build(Linf(0.1))
