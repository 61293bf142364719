"""What attacks say of their cost, against the passes through a network that nothing breaks."""

import pytest
import torch
from torch import nn

from sglr.attacks import REGISTRY, AttackOptions
from sglr.threat import Linf

N = 8


class Counting(nn.Module):
    """A linear classifier that counts images going forward and gradients coming back."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Linear(16, classes)
        self.forwards = self.backwards = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.forwards += len(x)
        logits = self.head(x.flatten(1))
        if logits.requires_grad:
            logits.register_hook(self.count)
        return logits

    def count(self, gradient: torch.Tensor) -> None:
        self.backwards += len(gradient)


@pytest.mark.parametrize(
    ("options", "classes"),
    [
        ({"name": "fgsm"}, 10),
        ({"name": "pgd", "steps": 7, "restarts": 3}, 10),
        ({"name": "apgd", "steps": 30, "restarts": 2}, 10),
        ({"name": "square", "queries": 300, "restarts": 2}, 10),
        pytest.param({"name": "autoattack"}, 10, marks=pytest.mark.slow),
        pytest.param({"name": "autoattack"}, 4, marks=pytest.mark.slow),
        pytest.param({"name": "autoattack", "version": "plus"}, 10, marks=pytest.mark.slow),
        pytest.param({"name": "autoattack", "version": "rand"}, 10, marks=pytest.mark.slow),
    ],
)
def test_an_attack_tells_its_passes(options, classes):
    attack, model = REGISTRY.options(**options), Counting(classes).eval()
    x = torch.rand(N, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    y = model(x).argmax(1)
    model.forwards = model.backwards = 0
    assert torch.equal(model(attack.build(Linf(1e-7))(model, x, y, seed=0)).argmax(1), y)
    forwards, backwards = attack.passes(classes)
    # Looking whether an attack succeeded takes a few forwards more.
    assert model.forwards / N == pytest.approx(forwards, rel=0.05, abs=5)
    assert model.backwards / N == pytest.approx(backwards, rel=0.05, abs=3)


def test_targeted_attacks_have_as_many_targets_as_there_are_other_classes():
    """Nine at most; so a third of the targeted passes where there are four classes."""
    few, ten, hundred = (REGISTRY.options("autoattack").passes(classes)[0] for classes in (4, 10, 100))
    own = REGISTRY.options("autoattack", version="plus")
    assert ten == hundred
    # APGD-T: 100 passes a target, FAB-T: 200.
    assert ten - few == (9 - 3) * (100 + 2 * 100)
    assert own.passes(10)[0] > ten


def test_every_attack_tells_them_and_one_of_ones_own_need_not():
    assert all(REGISTRY.options(name).passes(10) for name in REGISTRY.names())
    assert AttackOptions(name="own").passes(10) is None
