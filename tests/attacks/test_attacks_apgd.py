"""Losses by hand; Auto-PGD against closed forms and, example by example, against pyautoattack at equal budget."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from sglr.attacks import REGISTRY, apgd, correct_under, pgd
from sglr.attacks.apgd import _on_sphere, _run
from sglr.attacks.losses import LOSSES
from sglr.attacks.pgd import input_gradient
from sglr.threat import L2, Linf

LOGITS = torch.tensor([[3.0, 1.0, -1.0, 0.0], [0.0, 2.0, 5.0, 1.0]])
LABELS = torch.tensor([0, 1])


def test_losses_by_hand():
    assert LOSSES["cw"](LOGITS, LABELS).tolist() == [-2.0, 3.0]
    # The largest and the third largest logits are 3 and 0, and 5 and 1.
    torch.testing.assert_close(LOSSES["dlr"](LOGITS, LABELS), torch.tensor([-2 / 3, 3 / 4]))
    log = torch.log(torch.tensor([3.0, 1.0, -1.0, 0.0]).exp().sum()) - 3
    torch.testing.assert_close(LOSSES["ce"](LOGITS, LABELS)[0], log)


def test_dlr_is_unchanged_by_shift_and_scale_and_needs_three_classes():
    expected = LOSSES["dlr"](LOGITS, LABELS)
    torch.testing.assert_close(LOSSES["dlr"](1e4 * LOGITS + 7, LABELS), expected)
    assert LOSSES["dlr"](torch.zeros(2, 3), LABELS).tolist() == [0, 0]
    with pytest.raises(ValueError, match="at least 3 classes, this model has 2"):
        LOSSES["dlr"](LOGITS[:, :2], LABELS)


class Linear(nn.Module):
    """Linear classes on 4x4 images, float64."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.weight = nn.Parameter(torch.randn(16, classes, generator=generator, dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x.flatten(1) - 0.5) @ self.weight


def images(n: int, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
    return torch.rand(n, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * (high - low) + low


@pytest.mark.parametrize("threat", [Linf(0.02), L2(0.06)])
@pytest.mark.parametrize("loss", ["ce", "dlr"])
def test_robust_exactly_where_the_closed_form_says(threat, loss):
    """A linear model is robust iff every pairwise margin exceeds eps times the dual norm of the weights' difference."""
    model, x = Linear(), images(60, 0.3, 0.7)
    logits = model(x).detach()
    y = logits.argmax(1)
    weight = model.weight.detach().T
    norm = 1 if isinstance(threat, Linf) else 2
    reach = threat.eps * (weight[y][:, None] - weight[None]).norm(p=norm, dim=2)
    slack = (
        (logits.gather(1, y[:, None]) - logits - reach)
        .masked_fill(nn.functional.one_hot(y, 5).bool(), torch.inf)
        .amin(1)
    )
    # Where the closed form is closer than what the last step size reaches, either answer is right.
    clear = slack.abs() > 1e-3
    found = model(apgd(model, x, y, threat=threat, steps=60, loss=loss, restarts=3)).argmax(1) == y
    assert torch.equal(found[clear & (slack > 0)], torch.ones_like(found[clear & (slack > 0)]))
    assert 10 < int(found.sum()) < 50
    # An untargeted loss may climb to another class than the one in reach: at most one in twenty.
    assert int((found & (slack < -1e-3)).sum()) <= 3


@pytest.mark.parametrize("threat", [Linf(0.02), L2(0.06)])
@pytest.mark.parametrize("loss", ["ce", "cw"])
def test_of_two_classes_exactly_those_are_broken_that_the_closed_form_says(threat, loss):
    """Logits (0, w.x): the margin falls by at most eps times w's dual norm, and the step that does it is known."""
    model, x = Linear(2), images(200, 0.3, 0.7)
    weight = (model.weight[:, 1] - model.weight[:, 0]).detach()
    score = (x.flatten(1) - 0.5) @ weight
    y = (score > 0).long()
    reach = threat.eps * weight.norm(p=1 if isinstance(threat, Linf) else 2)
    robust = score.abs() > reach
    clear = (score.abs() - reach).abs() > 1e-6
    attack = REGISTRY.options("apgd", steps=20, loss=loss).build(threat)
    x_adv = attack(model, x, y, seed=0)
    assert torch.equal((model(x_adv).argmax(1) == y)[clear], robust[clear])
    assert 40 < int(robust.sum()) < 160
    direction = weight.sign() if isinstance(threat, Linf) else weight / weight.norm()
    best = x.flatten(1) - (2 * y[:, None] - 1) * threat.eps * direction
    # Where it is robust the attack ends at the one best point; the box is not reached.
    torch.testing.assert_close(x_adv.flatten(1)[robust], best[robust], atol=1e-4, rtol=0)


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    layers = nn.Sequential(nn.Flatten(), nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 6))
    for layer in (layers[1], layers[3], layers[5]):
        layer.weight.data.mul_(2.5)
    return layers.eval()


@pytest.mark.parametrize(("norm", "threat"), [("Linf", Linf(0.04)), ("L2", L2(0.13))])
@pytest.mark.parametrize("loss", ["ce", "dlr"])
def test_not_weaker_than_pyautoattack_at_equal_budget(norm, threat, loss):
    from pyautoattack.autopgd_base import APGDAttack

    theirs_only = ours_only = robust = 0
    for seed in range(3):
        model, x = network(seed), images(120).float()
        y = model(x).argmax(1)
        ours = (
            model(
                apgd(model, x, y, threat=threat, steps=50, loss=loss, generator=torch.Generator().manual_seed(0))
            ).argmax(1)
            == y
        )
        reference = APGDAttack(model, n_iter=50, norm=norm, eps=threat.eps, seed=0, loss=loss, device="cpu")
        theirs = model(reference.perturb(x, y)).argmax(1) == y
        theirs_only += int((ours & ~theirs).sum())
        ours_only += int((theirs & ~ours).sum())
        robust += int(theirs.sum())
    print(f"{norm} {loss}: of 360 robust to theirs {robust}; broken by theirs alone {theirs_only}, by ours {ours_only}")
    assert 60 < robust < 300
    assert theirs_only - ours_only <= 2
    assert theirs_only <= 4


def test_apgd_stays_in_ball_and_box_and_leaves_no_gradient():
    model, x = Linear(), images(20)
    y = torch.arange(20) % 5
    for threat in (Linf(0.3), L2(1.0), Linf(0.0), L2(0.0)):
        x_adv = apgd(model, x, y, threat=threat, steps=12)
        assert ((x_adv >= 0) & (x_adv <= 1)).all()
        assert (threat.distance(x_adv, x) <= threat.eps + 1e-9).all()
    assert model.weight.grad is None


def test_equal_seeds_give_equal_points():
    model, x = network(0), images(10).float()
    attack = REGISTRY.options("apgd", steps=5, loss="dlr").build(Linf(0.1))
    y = model(x).argmax(1)
    assert torch.equal(attack(model, x, y, seed=1), attack(model, x, y, seed=1))
    assert not torch.equal(attack(model, x, y, seed=1), attack(model, x, y, seed=2))


@pytest.mark.parametrize("threat", [Linf(0.1), L2(0.5)])
def test_what_is_drawn_does_not_depend_on_how_images_lie_in_memory(threat):
    x = torch.rand(3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    one, other = (
        _on_sphere(threat, given, torch.Generator().manual_seed(1))
        for given in (x, x.contiguous(memory_format=torch.channels_last))
    )
    assert torch.equal(one, other)


def test_pgd_on_the_margin_breaks_a_model_whose_cross_entropy_has_no_gradient():
    """Logits scaled until softmax saturates: the cross-entropy's gradient is exactly zero, the margin's is not."""
    model, x = Linear(), images(60).float()
    model = nn.Sequential(model.float(), Scaled(1e4)).eval()
    y = model(x).argmax(1)
    counts = {}
    for loss in ("ce", "cw", "dlr"):
        attack = REGISTRY.options("pgd", steps=10, loss=loss).build(Linf(0.03))
        counts[loss] = int(correct_under(model, x, y, attack, seed=0, batch_size=60).sum())
    assert counts["cw"] == counts["dlr"] < counts["ce"] - 20


class Scaled(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor


@pytest.mark.parametrize("threat", [Linf(0.1), L2(0.5)])
@pytest.mark.parametrize("factor", [0.0, 1e-30, 1e30, 1e38])
def test_vanishing_and_exploding_gradients_give_finite_points(threat, factor):
    model, x = nn.Sequential(Linear().float(), Scaled(factor)).eval(), images(6).float()
    y = torch.zeros(6, dtype=torch.long)
    for point in (
        pgd(model, x, y, threat=threat, step_size=0.05, steps=4, loss="cw"),
        apgd(model, x, y, threat=threat, steps=6, loss="ce"),
    ):
        assert ((point >= 0) & (point <= 1)).all()
        assert (threat.distance(point, x) <= threat.eps + 1e-6).all()


def test_a_tiny_gradient_still_gives_a_step_of_full_length():
    """1e-30 squared is zero in float32: the norm must not be taken of it."""
    gradient = torch.full((1, 1, 4, 4), 1e-30)
    torch.testing.assert_close(L2(1.0).step(gradient, 0.5), torch.full((1, 1, 4, 4), 0.125))
    torch.testing.assert_close(L2(1.0).step(gradient * 1e30 * 3e38, 0.5), torch.full((1, 1, 4, 4), 0.125))


def test_a_step_under_l2_follows_gradients_of_either_sign_and_leaves_pixels_without_one():
    gradient = torch.tensor([[-3.0, -4.0], [0.0, 2.0], [0.0, 0.0]])
    torch.testing.assert_close(L2(1.0).step(gradient, 0.5), torch.tensor([[-0.3, -0.4], [0.0, 0.5], [0.0, 0.0]]))


def test_a_gradient_that_is_nan_is_no_direction():
    x = torch.zeros(2, 1, 1, 1)
    gradient = input_gradient(nn.Flatten(), x, LABELS[:1].expand(2), lambda logits, y: logits[:, 0].sqrt() * 0)
    assert gradient.flatten().tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("change", "message"), [({"steps": 0}, "steps and restarts"), ({"loss": "mse"}, "unknown loss")]
)
def test_bad_arguments_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        apgd(Linear(), images(2), LABELS, threat=Linf(0.1), **change)


def by_hand(model, x, label, eps, start):
    """Algorithm 1 of Croce and Hein (2020) with 100 steps under Linf, one image as it stands there: its best point, or
    the last that is misclassified, and the best loss."""

    def f(point):
        point = point.detach().requires_grad_()
        logits = model(point[None])[0]
        loss = torch.logsumexp(logits, 0) - logits[label]
        (gradient,) = torch.autograd.grad(loss, point)
        return loss.item(), gradient, int(logits.argmax()) != label

    def inside(point):
        return torch.minimum(torch.maximum(point, x - eps), x + eps).clamp(0, 1)

    checkpoints, size, point, previous = [0, 22, 41, 57, 70, 80, 87, 93, 99], 2 * eps, start, start
    value, gradient, _ = f(point)
    best, best_value, best_gradient, wrong_point = point, value, gradient, None
    values, reduced, best_before = [value], True, value  # values: f(x_i) of the steps since the last checkpoint
    for step in range(1, 101):
        z = inside(point + size * gradient.sign())
        moved = z if step == 1 else inside(point + 0.75 * (z - point) + 0.25 * (point - previous))
        point, previous = moved, point
        value, gradient, wrong = f(point)
        wrong_point = point if wrong else wrong_point
        values.append(value)
        if value > best_value:
            best, best_value, best_gradient = point, value, gradient
        if step in checkpoints:
            window = step - checkpoints[checkpoints.index(step) - 1]
            rises = sum(after > before for before, after in pairwise(values))
            reduce = rises <= 0.75 * window or (not reduced and best_value <= best_before)
            if reduce:
                size, point, gradient, value = size / 2, best, best_gradient, best_value
            reduced, best_before, values = reduce, best_value, [value]
    return (best if wrong_point is None else wrong_point), best_value, wrong_point is not None


def test_it_takes_the_steps_of_the_algorithm():
    threat, fooled = Linf(0.03), 0
    for seed in range(3):
        model, x = network(seed).double(), images(24)
        y = model(x).argmax(1)
        start = _on_sphere(threat, x, torch.Generator().manual_seed(seed))
        points, scores = _run(model, x, y, threat, LOSSES["ce"], 100, start)
        for place in range(24):
            point, value, wrong = by_hand(model, x[place], int(y[place]), threat.eps, start[place])
            torch.testing.assert_close(points[place], point, atol=1e-9, rtol=0)
            assert float(scores[place]) == (torch.inf if wrong else pytest.approx(value, abs=1e-9))
            fooled += wrong
    assert 10 < fooled < 62
