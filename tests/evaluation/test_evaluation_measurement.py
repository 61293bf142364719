"""Which examples an attack is run on, and what is kept of those that it is not run on."""

import numpy as np
import pytest
import torch
from evaluation_study import Output
from torch import Tensor, nn

from sglr.attacks import REGISTRY, AttackOptions, correct_under
from sglr.evaluation.measurement import Measurement
from sglr.threat import Linf, Threat


def shift(by: float, seen: list[list[int]]):
    """Adds ``by`` to the first pixel; notes whom it was run on by the second one, an example's number / 100."""

    def attack(model: nn.Module, x: Tensor, y: Tensor, *, seed: int) -> Tensor:
        seen.append((x[:, 0, 0, 1] * 100).round().int().tolist())
        x = x.clone()
        x[:, 0, 0, 0] = (x[:, 0, 0, 0] + by).clamp(0, 1)
        return x

    return attack


class Shift(AttackOptions):
    """One attack."""

    by: float = 0.0
    seen: list[list[int]] = []  # noqa: RUF012 (pydantic copies it)

    def build(self, threat: Threat):
        return shift(self.by, self.seen)


class Shifts(Shift):
    """An attack of two members, the second stronger."""

    def members(self, threat: Threat):
        return {"weak": shift(0.06, self.seen), "strong": shift(0.15, self.seen)}


class FirstPixel(nn.Module):
    """Class 1 where the first pixel is above a half."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([0.5 - x[:, 0, 0, 0], x[:, 0, 0, 0] - 0.5], 1)


# Six examples of class 0, in chunks of three; the third and the fourth are misclassified as they are.
FIRST = [0.1, 0.4, 0.6, 0.7, 0.3, 0.45]
X = torch.tensor([[[[first, number / 100]]] for number, first in enumerate(FIRST)])
Y = torch.zeros(6, dtype=torch.long)


def measured(options: AttackOptions | None, keep: int = 0, n: int = 6, before: Measurement | None = None):
    return Measurement(FirstPixel(), X[:n], Y[:n], options, Linf(0.45), seed=0, chunk=3, keep=keep, before=before)


@pytest.mark.parametrize("given", [True, False], ids=["natural predictions given", "made"])
def test_what_is_misclassified_is_not_attacked(given):
    options = Shift(name="shift", by=0.15)
    found = measured(options, before=measured(None, keep=6) if given else None).whole()
    assert options.seen == [[0, 1], [4, 5]]
    assert found.correct.tolist() == [True, False, False, False, True, False]


def test_unless_its_image_is_kept():
    """Of the two that are misclassified as they are the worse image is kept, and they stay misclassified."""
    options, back = Shift(name="shift", by=0.15), Shift(name="shift", by=-0.3)
    found = measured(options, keep=4, before=measured(None, keep=4)).whole()
    assert options.seen == [[0, 1, 2], [3, 4, 5]]
    assert found.correct.tolist() == [True, False, False, False, True, False]
    np.testing.assert_allclose(found.images[:, 0, 0, 0], [0.25, 0.55, 0.75, 0.85], atol=1e-6)
    np.testing.assert_allclose(found.margin, [-0.5, 0.1, 0.5, 0.7], atol=1e-6)
    found = measured(back, keep=4).whole()
    assert found.correct.tolist() == [True, True, False, False, True, True]
    np.testing.assert_allclose(found.images[:, 0, 0, 0], [0.1, 0.4, 0.6, 0.7], atol=1e-6)


def test_a_measurement_goes_on_from_the_one_before():
    weak, strong = Shift(name="shift", by=0.06), Shift(name="shift", by=0.15)
    first = measured(weak, before=measured(None, keep=6))
    second = measured(strong, n=5, before=first)
    assert second.whole().correct.tolist() == [True, False, False, False, True]
    assert weak.seen == [[0, 1], [4, 5]]
    assert strong.seen == [[0, 1], [4]]
    assert len(second.whole().images) == 0
    assert first.whole().correct.tolist() == [True, True, False, False, True, False]
    # Asked again, nothing is done again.
    assert len(weak.seen) == len(strong.seen) == 2


def test_later_members_are_run_on_what_is_still_correct():
    """As AutoAttack is, whose members skip by themselves what is misclassified without an attack."""

    options = Shifts(name="shifts")
    found = measured(options, keep=4).whole()
    assert options.seen == [[0, 1, 2], [0, 1], [3, 4, 5], [4]]
    assert found.correct.tolist() == [True, False, False, False, True, False]


def test_where_nothing_is_left_nothing_is_run():
    options = Shift(name="shift", by=0.45)
    first = measured(options, before=measured(None))
    second = Shift(name="shift", by=0.45)
    assert not measured(second, before=first).whole().correct.any()
    assert options.seen == [[0, 1], [4, 5]]
    assert second.seen == []


def test_a_random_start_is_that_of_the_seed_and_the_chunk():
    model = Output(lambda logits: logits).eval()
    x = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    y = model(x).argmax(1)
    options = REGISTRY.options("pgd", steps=2, restarts=3)
    whole = Measurement(model, x, y, options, Linf(0.01), seed=5, chunk=4, keep=8).whole()
    second = Measurement(model, x[4:], y[4:], options, Linf(0.01), seed=6, chunk=4, keep=4).whole()
    np.testing.assert_array_equal(whole.images[4:], second.images)


class InPlace(Shift):
    """The usual slip: ``detach`` without a copy."""

    def build(self, threat: Threat):
        def attack(model: nn.Module, x: Tensor, y: Tensor, *, seed: int) -> Tensor:
            x = x.detach()
            x[:, 0, 0, 0] += self.by
            return x

        return attack


def test_an_attack_that_works_in_place_moves_nothing_that_it_is_measured_from():
    kept = X.clone()
    assert measured(InPlace(name="in place", by=0.15)).whole().correct.tolist() == [
        True,
        False,
        False,
        False,
        True,
        False,
    ]
    with pytest.raises(RuntimeError, match=r"longer than eps 0\.45"):
        measured(InPlace(name="in place", by=0.5), n=1).whole()
    attack = InPlace(name="in place", by=0.5).build(Linf(0.45))
    with pytest.raises(RuntimeError, match=r"longer than eps 0\.45"):
        correct_under(FirstPixel(), X[:1], Y[:1], attack, seed=0, batch_size=1, threat=Linf(0.45))
    assert torch.equal(X, kept)


@pytest.mark.parametrize(
    ("returned", "said"), [(None, "NoneType, no tensor"), (lambda x: x.numpy(), "ndarray, no tensor")]
)
def test_an_attack_that_returns_no_tensor_is_told(returned, said):
    def attack(model: nn.Module, x: Tensor, y: Tensor, *, seed: int):
        return returned and returned(x)

    with pytest.raises(RuntimeError, match=f"the attack returned {said}"):
        correct_under(FirstPixel(), X, Y, attack, seed=0, batch_size=6)
