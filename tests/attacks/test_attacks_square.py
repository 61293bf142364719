"""Square Attack against pyautoattack called directly, and against what a linear model allows."""

import pytest
import torch
from torch import nn

from sglr.attacks import REGISTRY, autoattack, square
from sglr.threat import L2, Linf


def model_and_images() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).eval()
    x = torch.rand(20, 1, 8, 8)
    return model, x, model(x).argmax(1)


def test_equals_pyautoattack_and_leaves_the_random_state_alone():
    from pyautoattack.square import SquareAttack

    model, x, y = model_and_images()
    state = torch.get_rng_state()
    for threat, norm in ((Linf(0.1), "Linf"), (L2(0.8), "L2")):
        found = square(model, x, y, threat=threat, seed=3, queries=60)
        assert torch.equal(torch.get_rng_state(), state)
        reference = SquareAttack(
            model,
            p_init=0.8,
            n_queries=60,
            eps=threat.eps,
            norm=norm,
            n_restarts=1,
            seed=3,
            device="cpu",
            resc_schedule=False,
        )
        expected = reference.perturb(x, y)
        torch.set_rng_state(state)
        broken = model(expected).argmax(1) != y
        assert 0 < int(broken.sum()) < 20
        assert torch.equal(found[broken], expected[broken])
        assert torch.equal(found[~broken], x[~broken])
        assert (threat.distance(found, x) <= threat.eps + 1e-5).all()


def test_options_reach_the_attack():
    model, x, y = model_and_images()
    attack = REGISTRY.options("square", queries=60).build(Linf(0.1))
    assert torch.equal(attack(model, x, y, seed=3), square(model, x, y, threat=Linf(0.1), seed=3, queries=60))


@pytest.mark.parametrize("ball", [Linf(0.5), L2(0.5)])
def test_tied_logits_leave_nothing_to_find(ball):
    """A network that has collapsed gives all images the same logits."""

    class Constant(nn.Module):
        def forward(self, x):
            return torch.zeros(len(x), 10) + 0 * x.flatten(1).sum(1, keepdim=True)

    x, y = torch.rand(4, 1, 8, 8), torch.zeros(4, dtype=torch.int64)
    assert torch.equal(square(Constant(), x, y, threat=ball, seed=0, queries=20), x)
    assert torch.equal(autoattack(Constant(), x, y, threat=ball, seed=0, member="square"), x)
