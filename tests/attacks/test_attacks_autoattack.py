"""AutoAttack on a model that stops gradients, and with few classes."""

import logging

import pytest
import torch
from torch import nn

from sglr.attacks import autoattack
from sglr.attacks.accuracy import require_allowed
from sglr.attacks.autoattack import captured_warnings
from sglr.attacks.square import square
from sglr.threat import L2, Linf


class Stopped(nn.Module):
    """A linear classifier behind a layer that gradients do not pass."""

    def __init__(self, classes: int = 4):
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Linear(16, classes)

    def forward(self, x):
        return self.head(x.detach().flatten(1))


@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_size_below_one_is_refused(size):
    """The package would attack nothing, and all would seem robust."""
    model, x = Stopped().eval(), torch.rand(4, 1, 4, 4)
    with pytest.raises(ValueError, match=f"batch_size must be at least 1, found {size}"):
        autoattack(model, x, model(x).argmax(1), threat=Linf(0.3), seed=0, batch_size=size)


def test_logits_without_a_gradient_are_warned_of_and_attacked_all_the_same():
    model, x = Stopped().eval(), torch.rand(12, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    y = model(x).argmax(1)
    with captured_warnings() as warnings:
        x_adv = autoattack(model, x, y, threat=Linf(0.3), seed=0)
    require_allowed(x_adv, x, Linf(0.3))
    assert any("no gradient at the image" in warning for warning in warnings)
    # The black-box member needs no gradient.
    assert (model(x_adv).argmax(1) != y).any()


@pytest.mark.parametrize("norm", [pytest.param(Linf(0.2), marks=pytest.mark.slow), L2(1.0)])
def test_images_and_models_in_double_precision(norm):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(25, 5)).double().eval()
    x = torch.rand(8, 1, 5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = model(x).argmax(1)
    x_adv = autoattack(model, x, y, threat=norm, seed=0)
    assert x_adv.dtype == torch.float64
    require_allowed(x_adv, x, norm)
    assert (model(x_adv).argmax(1) != y).any()


def test_the_version_for_randomised_defences_needs_three_classes_only():
    model, x = Stopped(classes=3).eval(), torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    y = model(x).argmax(1)
    with captured_warnings() as warnings:
        require_allowed(autoattack(model, x, y, threat=Linf(0.3), seed=0, version="rand"), x, Linf(0.3))
    assert not any("targets instead of 9" in warning for warning in warnings)
    with pytest.raises(ValueError, match="AutoAttack standard: its DLR losses need at least 4 classes, there are 3"):
        autoattack(model, x, y, threat=Linf(0.3), seed=0)


def test_the_default_type_of_the_caller_makes_no_difference():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Flatten(), nn.Linear(25, 5)).eval(), torch.rand(8, 1, 5, 5)
    y = model(x).argmax(1)
    found = square(model, x, y, threat=Linf(0.1), queries=20)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(square(model, x, y, threat=Linf(0.1), queries=20), found)
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_ten_classes_are_attacked_as_the_standard_version_is():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 10))
    x = torch.rand(2, 3, 2, 2)
    with captured_warnings() as said:
        autoattack(model, x, model(x).argmin(1), threat=Linf(8 / 255), member="apgd-ce")
    assert not [text for text in said if "targets" in text]


def test_double_images_are_not_rounded_to_single_precision():
    """Where nothing breaks they are returned as they came, and no ball is left by the rounding of one."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(25, 5)).double().eval()
    x = torch.rand(8, 1, 5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y, threat = model(x).argmax(1), Linf(0.02)
    x_adv = square(model, x, y, threat=threat, queries=20)
    robust = model(x_adv).argmax(1) == y
    assert robust.any()
    assert torch.equal(x_adv[robust], x[robust])
    x_adv = square(model, x, y, threat=Linf(0.3), queries=20)
    assert float((x_adv - x).abs().max()) <= 0.3 + 1e-15


def test_tied_logits_are_no_result_of_a_version_with_square_under_l2():
    """The package ends there with nothing left to change, after attacks whose points would be lost."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(25, 5)).eval()
    for value in model.parameters():
        value.data.zero_()
    x = torch.rand(3, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    y = torch.zeros(3, dtype=torch.int64)
    assert torch.equal(square(model, x, y, threat=L2(1.0)), x)
    with pytest.raises(RuntimeError, match="0 elements"):
        autoattack(model, x, y, threat=L2(1.0))


def test_what_is_said_of_every_batch_is_kept_once():
    with captured_warnings() as said:
        for text in ("one thing", "one  thing", "another"):
            logging.getLogger("auto-attack").warning(text)
        logging.getLogger("auto-attack").info("nothing to warn of")
    assert said == ["one thing", "another"]


def test_gradients_of_parameters_stay_as_they_were():
    """FAB calls ``backward``: in the middle of an accumulation the next step would be another one."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    x = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    y = model(x).argmax(1)
    model(x).sum().backward()
    before = [(each.grad, each.grad.clone()) for each in model.parameters() if each.grad is not None]
    autoattack(model, x, y, threat=Linf(0.05), member="fab-t")
    assert len(before) == 2
    for each, (kept, value) in zip(model.parameters(), before, strict=True):
        assert each.grad is kept
        assert torch.equal(kept, value)


class InPlace(nn.Module):
    """Normalises the images that it is given, themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x.sub_(0.5).div_(0.5).flatten(1))


def test_a_model_that_works_in_place_changes_no_images_of_the_caller():
    x = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    before, y = x.clone(), torch.zeros(6, dtype=torch.int64)
    with pytest.raises(RuntimeError, match=r"the attack returned values outside|perturbations are longer than eps"):
        square(InPlace().eval(), x, y, threat=Linf(0.1), queries=5)
    assert torch.equal(x, before)
