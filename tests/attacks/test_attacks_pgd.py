"""PGD, FGSM and the balls against closed forms, and what an attack must leave alone."""

import warnings
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sglr.attacks import apgd, attack_mode, autoattack, correct_under, fgsm, pgd, square
from sglr.attacks.accuracy import LogitsError
from sglr.attacks.pgd import PgdOptions
from sglr.random import torch_stream
from sglr.threat import L2, Linf

SHAPE = (1, 4, 4)


class Linear(nn.Module):
    """Two classes, logits (w.x + b, 0): the margin's worst case over a ball is known in closed form."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(16, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        margin = x.flatten(1) @ self.w
        return torch.stack([margin, torch.zeros_like(margin)], 1)


def images(n: int, low: float = 0.0, high: float = 1.0, seed: int = 0) -> torch.Tensor:
    return (
        torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * (high - low) + low
    )


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("step_size_255", "step_size"), [(3.0, 3 / 255), (None, 0.05)])
def test_the_attack_of_params_is_pgd_of_these_numbers(seed, step_size_255, step_size):
    model, x, y, threat = Linear(), images(8), torch.tensor([0, 1] * 4), Linf(0.2)
    attack = PgdOptions(name="pgd", steps=2, step_size_255=step_size_255).build(threat)
    generator = torch_stream(seed, "pgd")
    expected = pgd(model, x, y, threat=threat, step_size=step_size, steps=2, generator=generator)
    assert torch.equal(attack(model, x, y, seed=seed), expected)
    if step_size_255 is None:  # as a caller has it who says nothing
        assert torch.equal(pgd(model, x, y, threat=threat, steps=2, generator=torch_stream(seed, "pgd")), expected)


def test_linf_reaches_the_optimum_of_a_linear_model_inside_the_box():
    model, x, eps = Linear(), images(8), 0.2
    y = torch.tensor([0, 1] * 4)
    x_adv = pgd(model, x, y, threat=Linf(eps), step_size=eps / 4, steps=20)
    # The margin of class 0 is lowered by w's sign, each pixel as far as ball and box allow; class 1 the other way.
    direction = torch.where(y == 0, -1.0, 1.0)[:, None] * model.w.detach().sign()
    best = (x.flatten(1) + eps * direction).clamp(0, 1)
    torch.testing.assert_close(x_adv.flatten(1), best, atol=1e-12, rtol=0)


def test_l2_reaches_the_optimum_of_a_linear_model_where_the_box_is_inactive():
    model, x, eps = Linear(), images(8, 0.4, 0.6), 0.3
    y = torch.tensor([0, 1] * 4)
    x_adv = pgd(model, x, y, threat=L2(eps), step_size=eps / 4, steps=60)
    w = model.w.detach()
    direction = torch.where(y == 0, -1.0, 1.0)[:, None] * w / w.norm()
    assert (x_adv > 0).all()
    assert (x_adv < 1).all()
    # Loss: the margin moves by exactly eps * ||w||. Gradients of equal direction everywhere make the point unique.
    torch.testing.assert_close(x_adv.flatten(1), x.flatten(1) + eps * direction, atol=1e-6, rtol=0)


@pytest.mark.filterwarnings("ignore:the ball of Linf")
@settings(max_examples=60, deadline=None)
@given(
    eps=st.floats(0, 2),
    step=st.floats(1e-3, 3),
    norm=st.sampled_from([Linf, L2]),
    steps=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_never_leaves_ball_or_box(eps, step, norm, steps, seed):
    x = images(4, seed=seed)
    x_adv = pgd(
        Linear(seed),
        x,
        torch.zeros(4, dtype=torch.long),
        threat=norm(eps),
        step_size=step,
        steps=steps,
        generator=torch.Generator().manual_seed(seed),
    )
    assert ((x_adv >= 0) & (x_adv <= 1)).all()
    assert (norm(eps).distance(x_adv, x) <= eps + 1e-9).all()


@pytest.mark.parametrize("threat", [Linf(0.1), L2(0.5)])
def test_a_zero_gradient_gives_no_step_and_no_nan(threat):
    model = Linear()
    model.w.data.zero_()
    x = images(3)
    x_adv = pgd(model, x, torch.zeros(3, dtype=torch.long), threat=threat, step_size=0.1, steps=3, random_start=False)
    assert torch.equal(x_adv, x)


@pytest.mark.parametrize("threat", [Linf(0.1), L2(0.5)])
def test_random_starts_fill_the_ball(threat):
    x = torch.full((4000, *SHAPE), 0.5)
    start = threat.random_start(x, torch.Generator().manual_seed(0))
    distance = threat.distance(start, x)
    assert distance.max() <= threat.eps + 1e-6
    if isinstance(threat, L2):
        # Radius U(0, eps): mean eps / 2, deviation eps / sqrt(12); four standard errors of the mean.
        assert abs(distance.mean() - threat.eps / 2) < 4 * threat.eps / 12**0.5 / 4000**0.5
    else:
        assert abs((start - x).mean()) < 4 * threat.eps / 3**0.5 / (4000 * 16) ** 0.5
        assert abs((start - x).var() - threat.eps**2 / 3) < 0.02 * threat.eps**2


def test_fgsm_is_one_step_of_eps_without_random_start():
    model, x = Linear(), images(5)
    y = torch.zeros(5, dtype=torch.long)
    expected = (x.flatten(1) - 0.1 * model.w.detach().sign()).clamp(0, 1)
    torch.testing.assert_close(fgsm(model, x, y, threat=Linf(0.1)).flatten(1), expected, atol=1e-12, rtol=0)


def test_restarts_keep_the_worst_case_of_each_example():
    """A model with one narrow weakness: more restarts can only lower the number of correct examples."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 3)).double().eval()
    x = images(200)
    y = model(x).argmax(1)
    counts = []
    for restarts in (1, 8):
        attack = PgdOptions(name="pgd", steps=1, step_size_255=0.5, restarts=restarts).build(Linf(0.1))
        correct = correct_under(model, x, y, attack, seed=0, batch_size=64)
        counts.append(int(correct.sum()))
    assert counts[1] < counts[0]


def batch_norm_model() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Dropout(0.5), nn.Flatten(), nn.Linear(12, 2))
    model.train()
    model[1].eval()  # a mixed state, as a user may have frozen a layer
    return model


@pytest.mark.parametrize("bn", ["eval", "train"])
def test_an_attack_leaves_statistics_modes_and_gradients_as_they_were(bn):
    model = batch_norm_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    x = images(6).float()
    with attack_mode(model, bn):
        assert all(module.training == (bn == "train") for module in model.modules())
        pgd(model, x, torch.zeros(6, dtype=torch.long), threat=Linf(0.1), step_size=0.02, steps=3)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert model[1].track_running_stats


def test_an_attack_takes_back_what_other_layers_note():
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls = self.calls + 1  # another tensor each time
            return x

    model = nn.Sequential(nn.InstanceNorm2d(1, track_running_stats=True), Counts(), nn.Flatten(), nn.Linear(16, 2))
    model(images(6).float())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    calls = model[1].calls
    with attack_mode(model, "train"):
        pgd(model, images(6).float(), torch.zeros(6, dtype=torch.long), threat=Linf(0.1), step_size=0.02, steps=3)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model[1].calls is calls


def test_attack_in_train_mode_normalises_by_the_batch():
    model = batch_norm_model()
    model[2].p = 0.0
    model[1].running_mean.fill_(100.0)
    x = images(6).float()
    with torch.no_grad(), attack_mode(model, "train"):
        logits = model(x)
    hidden = model[0](x)
    mean, var = hidden.mean((0, 2, 3), keepdim=True), hidden.var((0, 2, 3), keepdim=True, unbiased=False)
    normal = (hidden - mean) / (var + 1e-5).sqrt() * model[1].weight[:, None, None] + model[1].bias[:, None, None]
    torch.testing.assert_close(logits, model[4](normal.flatten(1)))


@pytest.mark.parametrize(
    "attack",
    [
        fgsm, partial(pgd, step_size=0.05, steps=3), partial(apgd, steps=5), partial(square, seed=0, queries=20),
        pytest.param(partial(autoattack, seed=0, version="rand"), marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_inference_mode_makes_no_difference(attack):
    """Torch takes no gradients in it: an attack would follow zeros and find nothing."""
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Flatten(), nn.Linear(16, 4)).eval(), images(6).float()
    y, threat = model(x).argmax(1), Linf(0.1)

    def found(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(1)
        return attack(model, x, y, threat=threat)

    expected = found(x, y)
    with torch.inference_mode():
        assert torch.equal(found(x, y), expected)
        made = x.clone(), y.clone()
        assert torch.equal(found(*made), expected)
    assert torch.equal(found(*made), expected)
    assert not found(*made).is_inference()


def test_the_loss_may_be_a_function():
    model, x = Linear(), images(4)
    y = torch.zeros(4, dtype=torch.long)
    away = pgd(model, x, y, threat=Linf(0.1), step_size=0.1, steps=2, loss=lambda logits, labels: logits[:, 0])
    torch.testing.assert_close(away.flatten(1), (x.flatten(1) + 0.1 * model.w.detach().sign()).clamp(0, 1))


@pytest.mark.parametrize("attack", [pgd, apgd])
def test_a_loss_of_ones_own_may_understand_labels_beyond_the_classes(attack):
    x = images(2)
    found = attack(Linear(), x, torch.tensor([0, 7]), threat=Linf(0.1), loss=lambda logits, y: logits[:, 0] * (y + 1))
    assert not torch.equal(found, x)


@pytest.mark.parametrize("attack", [partial(pgd, step_size=0.05, restarts=3), partial(apgd, restarts=2)])
def test_targets_of_a_loss_of_ones_own(attack):
    """They name no class: each example keeps its highest loss."""

    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return ((logits.softmax(1) - targets) ** 2).sum(1)

    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 5)).double()
    x, targets = images(6), torch.rand(6, 5, dtype=torch.float64)
    x_adv = attack(model, x, targets, threat=Linf(0.1), steps=3, loss=loss)
    with torch.no_grad():
        assert (loss(model(x_adv), targets) > loss(model(x), targets)).all()
        once = pgd(model, x, targets, threat=Linf(0.1), step_size=0.05, steps=3, loss=loss)
        if attack.func is pgd:
            assert (loss(model(x_adv), targets) >= loss(model(once), targets) - 0.05).all()


@pytest.mark.parametrize("attack", [pgd, apgd])
def test_the_cross_entropy_takes_probabilities_and_other_losses_take_classes(attack):
    x, hard = images(4), torch.tensor([0, 1, 1, 0])
    soft = nn.functional.one_hot(hard, 2).double()
    given = {"threat": Linf(0.1), "steps": 2, "generator": torch.Generator().manual_seed(0)}
    found = attack(Linear(), x, soft, **given)
    given["generator"].manual_seed(0)
    torch.testing.assert_close(found, attack(Linear(), x, hard, **given))
    with pytest.raises(TypeError, match=r"labels must be class numbers \(N,\), found torch\.float64 \(4, 2\)"):
        attack(Linear(), x, soft, threat=Linf(0.1), loss="cw")
    for name in ("square", "autoattack"):
        with pytest.raises(TypeError, match=r"labels must be class numbers \(N,\), found torch\.float64 \(4, 2\)"):
            ATTACKS[name](Linear(), x, soft, threat=Linf(0.1))


class Slanted(Linf):
    """A ball that only this project's attacks can use."""


@pytest.mark.parametrize("name", ["fgsm", "pgd", "apgd", "square", "autoattack"])
def test_labels_beyond_the_classes_are_not_taken_for_broken(name):
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 10))
    with pytest.raises(ValueError, match="there is a label 10, but the model gives 10 logits"):
        ATTACKS[name](model, images(2).float(), torch.tensor([0, 10]), threat=Linf(0.1))


@pytest.mark.parametrize("name", ["square", "autoattack"])
def test_balls_that_pyautoattack_does_not_know_are_named(name):
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 10))
    with pytest.raises(TypeError, match="pyautoattack knows the balls Linf and L2, not Slanted"):
        ATTACKS[name](model, images(2).float(), torch.zeros(2, dtype=torch.long), threat=Slanted(0.1))


@pytest.mark.parametrize("attack", [partial(pgd, step_size=0.05), partial(pgd, step_size=0.05, restarts=2), apgd])
def test_a_mean_loss_says_nothing_of_each_example(attack):
    y = torch.zeros(4, dtype=torch.long)
    with pytest.raises(ValueError, match=r"one number per example, \(4,\), found \(\)"):
        attack(Linear(), images(4), y, threat=Linf(0.1), steps=2, loss=nn.functional.cross_entropy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps and restarts"),
        ({"restarts": 0}, "steps and restarts"),
        ({"step_size": -0.1}, "step_size must be a finite number of at least 0"),
        ({"step_size": float("inf")}, "step_size must be a finite number of at least 0"),
        ({"restarts": 2, "random_start": False}, "restarts=2 needs a random start and no `start`"),
        ({"loss": "mse"}, "unknown loss 'mse'"),
        ({"loss": None}, "unknown loss None"),
        ({"start": torch.zeros(1, 1, 2, 2)}, r"start must be points of the images' form, .* found .* \(1, 1, 2, 2\)"),
    ],
)
def test_bad_arguments_are_refused(change, message):
    arguments = {"threat": Linf(0.1), "step_size": 0.1, "steps": 2} | change
    with pytest.raises(ValueError, match=message):
        pgd(Linear(), images(2), torch.zeros(2, dtype=torch.long), **arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.zeros((2, 1, 4, 4), np.float32)}, "images must be a torch tensor, found ndarray"),
        ({"y": [0, 0]}, "labels must be a torch tensor, found list"),
        ({"y": torch.zeros(2)}, r"labels \(N,\) must be int64 class numbers, found torch\.float32"),
        ({"y": torch.zeros(2, dtype=torch.int32)}, "must be int64 class numbers, found torch.int32"),
        (
            {"y": torch.eye(2).long()},
            r"numbers \(N,\), found torch\.int64 \(2, 2\): argmax\(1\) of one-hot",
        ),
        ({"threat": 8 / 255}, r"threat must be a threat model such as sglr\.threat\.Linf\(8 / 255\), found 0\.03"),
        ({"threat": Linf}, "threat must be a threat model .* found <class"),
    ],
)
@pytest.mark.parametrize("name", ["pgd", "fgsm", "apgd", "square", "autoattack"])
def test_what_is_of_another_kind_is_refused(name, change, message):
    given = {"x": images(2), "y": torch.zeros(2, dtype=torch.long), "threat": Linf(0.1)} | change
    with pytest.raises(TypeError, match=message):
        ATTACKS[name](Linear(), **given)


@pytest.mark.parametrize("name", ["pgd", "fgsm", "apgd", "square", "autoattack"])
def test_labels_that_are_no_classes_are_refused(name):
    """Torch's cross-entropy leaves out those of -100: their images would not be attacked."""
    with pytest.raises(ValueError, match="labels must be class numbers from 0 on, found -100"):
        ATTACKS[name](Linear(), images(2), torch.tensor([0, -100]), threat=Linf(0.1))


ATTACKS = {
    "pgd": lambda model, x, y, threat: pgd(model, x, y, threat=threat, step_size=0.1, steps=1),
    "fgsm": lambda model, x, y, threat: fgsm(model, x, y, threat=threat),
    "apgd": lambda model, x, y, threat: apgd(model, x, y, threat=threat, steps=1),
    "square": lambda model, x, y, threat: square(model, x, y, threat=threat, seed=0, queries=5),
    "autoattack": lambda model, x, y, threat: autoattack(model, x, y, threat=threat, seed=0),
}


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x * 255, r"must lie in \[0, 1\], found [\d.]+ to 2\d\d.*: normalise in the model, not before it"),
        (lambda x: (x - 0.5) / 0.25, r"must lie in \[0, 1\], found -"),
        (lambda x: x.masked_fill(x > 0.5, torch.nan), r"must lie in \[0, 1\], found NaN"),
        (lambda x: x.masked_fill(x > 0.5, 1 + 1e-6), r"found [\d.]+ to 1\.00000\d+: clamp\(0, 1\)"),
        (lambda x: (x * 255).byte(), "must be floating point"),
        (lambda x: x[:1], "1 images and 4 labels"),
    ],
)
def test_what_is_no_image_in_the_unit_interval_is_refused(name, change, message):
    x = torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match=message):
        ATTACKS[name](
            torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 10)), change(x), torch.arange(4), Linf(0.1)
        )


def test_an_attack_that_leaves_its_ball_does_not_count():
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 10))
    x, options = torch.rand(4, 1, 4, 4), {"seed": 0, "batch_size": 4}
    with pytest.raises(RuntimeError, match=r"longer than eps 0\.01"):
        correct_under(model, x, torch.arange(4), lambda *_, seed: torch.rand_like(x), threat=Linf(0.01), **options)
    model[1].weight.data.fill_(float("nan"))
    with pytest.raises(LogitsError):
        correct_under(model, x, torch.arange(4), lambda *_, seed: x, **options)


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_one_logit_that_is_not_finite_is_no_outcome(value):
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 10))
    model[1].bias.data[3] = value
    with pytest.raises(LogitsError, match="of 4 of 4 images are NaN or infinite"):
        correct_under(model, torch.rand(4, 1, 4, 4), torch.arange(4), lambda _, x, y, seed: x, seed=0, batch_size=4)


class Blind(nn.Module):
    """Its logits have gradients, and none of them at the image."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([1.0, 0.0], dtype=torch.float64))

    def forward(self, x):
        return self.logits.expand(len(x), 2)


@pytest.mark.parametrize("name", ["pgd", "fgsm", "apgd"])
def test_a_model_that_does_not_look_is_attacked_in_vain(name):
    x = images(2)
    x_adv = ATTACKS[name](Blind(), x, torch.zeros(2, dtype=torch.long), threat=Linf(0.1))
    assert x_adv.shape == x.shape
    assert bool(x_adv.isfinite().all())


@pytest.mark.parametrize("name", ["pgd", "fgsm", "apgd", "square", "autoattack"])
def test_of_no_images_there_is_nothing_to_attack(name):
    x = images(2)[:0].float()
    assert ATTACKS[name](Linear().float(), x, torch.zeros(0, dtype=torch.long), threat=Linf(0.1)).shape == x.shape


@pytest.mark.parametrize("wrong", [lambda x: x[:, :, 1:], lambda x: x.float()])
def test_an_attack_that_returns_other_images_does_not_count(wrong):
    x, y = images(2), torch.zeros(2, dtype=torch.long)
    with pytest.raises(RuntimeError, match=r"returned torch\.float(64|32) \(2, 1, [34], 4\) for images torch"):
        correct_under(Linear(), x, y, lambda model, x, y, seed: wrong(x), seed=0, batch_size=2)


@pytest.mark.parametrize("eps", [-0.1, float("nan"), float("inf"), "8/255"])
def test_a_ball_needs_a_radius(eps):
    with pytest.raises(ValueError, match="eps must be"):
        Linf(eps)


def test_a_radius_in_255ths_is_doubted():
    with pytest.warns(UserWarning, match=r"radii in 255ths are given as Linf\(8 / 255\)") as said:
        Linf(8)
    assert said[0].filename == __file__
    with warnings.catch_warnings(action="error"):
        Linf(1), L2(8)
    # Of how many pixels an image has an L2 ball knows nothing: attacks doubt that one. Its 16 pixels are 4 from 0 to 1.
    x, y = images(2), torch.zeros(2, dtype=torch.long)
    with pytest.warns(UserWarning, match=r"L2\(4\) holds all images of this size, .* given as L2\(4 / 255\)") as said:
        pgd(Linear(), x, y, threat=L2(4), steps=1)
    assert said[0].filename == __file__
    with warnings.catch_warnings(action="error"):
        pgd(Linear(), x, y, threat=L2(3.9), steps=1)


def test_every_batch_sees_a_stream_of_its_own():
    seeds: list[int] = []

    def attack(model, x, y, *, seed):
        seeds.append(seed)
        return x

    model, x = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3)), torch.rand(5, 1, 4, 4)
    correct_under(model, x, torch.zeros(5, dtype=torch.int64), attack, seed=7, batch_size=2)
    assert seeds == [7, 8, 9]


def test_batch_norm_without_statistics_stays_so():
    norm = torch.nn.BatchNorm2d(1, track_running_stats=False)
    with attack_mode(norm, "train"):
        pass
    assert not norm.track_running_stats


def test_points_from_a_start_with_a_gradient_are_detached():
    model, x = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3)), torch.rand(2, 1, 4, 4)
    start = x.clone().requires_grad_()
    assert not pgd(model, x, torch.zeros(2, dtype=torch.int64), threat=Linf(0.1), start=start).requires_grad


def test_of_several_attempts_a_misclassified_point_goes_before_one_of_higher_loss():
    """Random points on either side of a boundary, and a loss that is higher where the model is right."""
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2, bias=False))
    model[1].weight.data[1] = -model[1].weight.data[0]
    x = torch.full((40, 1, 4, 4), 0.5)
    model[1].weight.data -= model[1].weight.data.mean(1, keepdim=True)  # x lies on the boundary
    x_adv = pgd(
        model, x, torch.zeros(40, dtype=torch.int64), threat=Linf(0.1), step_size=0, steps=1, restarts=12,
        loss=lambda logits, y: logits[:, 0], generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert (model(x_adv).argmax(1) == 1).all()


@pytest.mark.parametrize(
    ("value", "todo"), [(1 + 1e-6, "clamp"), (1 + 1e-3, "normalise in the model"), (-1e-3, "normalise")]
)
def test_rounding_is_told_from_a_normalisation(value, todo):
    x = torch.full((1, 1, 4, 4), 0.5, dtype=torch.float64)
    x[0, 0, 0, 0] = value
    with pytest.raises(ValueError, match=todo):
        pgd(torch.nn.Flatten(), x, torch.zeros(1, dtype=torch.int64), threat=Linf(0.1))


def test_a_targeted_attack_gives_its_classes_as_targets():
    """As labels (N,) they would be the true ones, and reaching anything else a success."""
    x = torch.rand(30, *SHAPE, generator=torch.Generator().manual_seed(3))
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    model[1].weight.data = torch.randn(3, 16, generator=torch.Generator().manual_seed(4))
    wanted = (model(x).argmax(1) + 1) % 3
    reached = []
    for attack in (partial(pgd, steps=5, restarts=3), partial(apgd, steps=10, restarts=2)):
        stream = torch.Generator().manual_seed(0)
        x_adv = attack(model, x, wanted[:, None], threat=Linf(0.5), loss=towards, generator=stream)
        reached.append(float((model(x_adv).argmax(1) == wanted).float().mean()))
    assert min(reached) > 0.9


def towards(logits: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    return -nn.functional.cross_entropy(logits, wanted[:, 0], reduction="none")


@pytest.mark.parametrize("attack", [pgd, apgd, fgsm])
def test_targets_that_fit_no_logits_and_outputs_that_are_none_are_said(attack):
    x = torch.rand(4, 1, 4, 4)
    one, seven = (nn.Sequential(nn.Flatten(), nn.Linear(16, n)) for n in (1, 7))
    with pytest.raises(ValueError, match="a single logit per image"):
        attack(one, x, torch.ones(4, 1), threat=Linf(0.1))
    with pytest.raises(ValueError, match=r"targets \(4, 3\) for logits \(4, 7\)"):
        attack(seven, x, torch.ones(4, 3) / 3, threat=Linf(0.1))
    with pytest.raises(ValueError, match=r"the model gives no logits \(N, classes\), but dict: wrap it"):
        attack(lambda images: {"logits": seven(images)}, x, torch.zeros(4, dtype=torch.int64), threat=Linf(0.1))
    with pytest.raises(TypeError, match=r"found torch.int64 \(4, 1\): squeeze\(1\)"):
        attack(seven, x, torch.zeros(4, 1, dtype=torch.int64), threat=Linf(0.1))
    with pytest.raises(ValueError, match="4 images and a single number as labels"):
        attack(seven, x, torch.tensor(1.0), threat=Linf(0.1))


def test_a_loss_of_ones_own_takes_targets_of_any_kind():
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 1))
    x, y = torch.rand(6, 1, 4, 4), torch.tensor([0.0, 1.0] * 3)

    def loss(logits: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        return nn.functional.binary_cross_entropy_with_logits(logits[:, 0], wanted, reduction="none")

    before, after = (
        loss(model(images), y) for images in (x, pgd(model, x, y, threat=Linf(0.1), loss=loss, restarts=2))
    )
    assert (after > before).all()
