"""Broken defences are flagged, each by the checks that should see it; honest models are not."""

import numpy as np
import pytest
import torch
from evaluation_study import make
from torch import Tensor, nn

from sglr import data, models
from sglr.attacks import REGISTRY
from sglr.config.reader import validate
from sglr.evaluation import evaluate
from sglr.evaluation.pieces import Pieces
from sglr.evaluation.sanity import SanityInputs, _radius, sanity
from sglr.threat import build
from sglr.training import Plan, fit

EPS = 25.5 / 255
SEEDS = 5
N = 64


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """Five small networks on digits, three of them trained adversarially, two naturally; and the test split."""
    from pathlib import Path

    from sglr.config import parse

    params = parse((Path(__file__).parents[2] / "params.yaml").read_text())
    params["data"] |= {"validation_size": 0, "noise": {"kind": "none", "rate": 0.0, "seed": 0, "map": None}}
    params["model"] |= {"channels": [8, 16], "hidden": 32}
    params["train"] |= {"epochs": 12, "batch_size": 50}
    params["train"]["schedule"] = {"name": "constant"}
    params["train"]["attack"]["steps"] = 4
    config = validate(params)
    folder = tmp_path_factory.mktemp("digits")
    data.prepare(config.data, folder)
    prepared = data.open_folder(folder)
    networks = []
    for seed in range(SEEDS):
        torch.set_num_threads(1)
        model = models.build(config.model, num_classes=10, shape=prepared.shape, generator_seed=seed)
        method = config.methods["at" if seed < 3 else "standard"]
        fit(Plan.training(config, method, seed=seed), model, prepared.train(seed), prepared.validation("cpu"))
        networks.append(model.eval())
    return networks, prepared.test("cpu")


def signs(model: nn.Module, test, norm: str = "linf", eps: float = EPS) -> list[str]:
    inputs = SanityInputs(
        model.eval(), test.images(slice(0, N)), test.true[:N], ball=lambda radius: build(norm, radius), eps=eps,
        steps=20, seed=0, chunk=N, pieces=Pieces(None),
    )  # fmt: skip
    return sanity(inputs)


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize(("norm", "eps"), [("linf", EPS), ("l2", 0.5)])
def test_honest_models_are_not_flagged(trained, seed, norm, eps):
    networks, test = trained
    assert signs(networks[seed], test, norm, eps) == []


class Quantised(nn.Module):
    """Images rounded to a few levels: zero gradient almost everywhere."""

    def forward(self, x: Tensor) -> Tensor:
        return (x * 3).round() / 3


class Stopped(nn.Module):
    """The identity without a gradient."""

    def forward(self, x: Tensor) -> Tensor:
        return x.detach()


class Scaled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 1e4 * x


class AlwaysDropout(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, 0.3, training=True)


def broken(model: nn.Module, defence: str) -> nn.Module:
    front = {"quantised": Quantised(), "stopped": Stopped(), "dropout": AlwaysDropout()}
    return nn.Sequential(front[defence], model) if defence in front else nn.Sequential(model, Scaled())


@pytest.mark.parametrize("seed", [0, 1, 4])
@pytest.mark.parametrize(
    ("defence", "expected"),
    [
        ("quantised", ["no gradient at all", "may change every pixel"]),
        ("stopped", ["no gradient at all", "may change every pixel"]),
        ("scaled", ["may change every pixel"]),
        ("dropout", ["different logits"]),
    ],
)
def test_broken_defences_are_flagged(trained, defence, expected, seed):
    networks, test = trained
    found = signs(broken(networks[seed], defence), test)
    for part in expected:
        assert any(part in sign for sign in found), (part, found)


@pytest.mark.slow
@pytest.mark.parametrize("defence", ["quantised", "stopped", "scaled", "dropout"])
def test_the_whole_evaluation_flags_them(trained, defence, params, tmp_path, monkeypatch):
    networks, _ = trained
    attacks = {"pgd20": {"name": "pgd", "steps": 20}, "autoattack": {"name": "autoattack", "n_examples": 4}}
    config, prepared, folder = make(
        params, tmp_path, n_examples=32, batch_size=32, attacks=attacks, sanity={"n_examples": 32, "steps": 20}
    )
    for path in (folder / "best").iterdir():
        path.unlink()
    monkeypatch.setattr(models, "load_model", lambda path: broken(networks[0], defence).eval())
    result = evaluate(config, prepared, folder, device=torch.device("cpu"))
    assert result.flags
    assert len(result.correct["last"]["autoattack"]) == 4


class Shattered(nn.Module):
    """Waves so short that their gradient says nothing of the way beyond the next one."""

    def forward(self, x: Tensor) -> Tensor:
        return (3000 * x).sin() / 2 + 0.5


def test_a_shattered_gradient_finds_little_more_than_noise(trained):
    networks, test = trained
    model = nn.Sequential(Shattered(), networks[0]).eval()
    x = test.images(slice(0, N)) * 0.98 + 0.01
    inputs = SanityInputs(
        model, x, model(x).argmax(1), ball=lambda radius: build("linf", radius), eps=0.05, steps=20, seed=0, chunk=N,
        pieces=Pieces(None),
    )  # fmt: skip
    assert any(sign.startswith("random noise breaks") for sign in sanity(inputs))


def test_what_is_wrong_without_noise_is_not_broken_by_it(trained):
    """Two thirds of the labels are no prediction of the model, which is otherwise sound."""
    networks, test = trained
    model, x = networks[0], test.images(slice(0, N))
    predicted = model(x).argmax(1)
    inputs = SanityInputs(
        model, x, torch.where(torch.arange(N) % 3 == 0, predicted, (predicted + 1) % 10),
        ball=lambda radius: build("linf", radius), eps=EPS, steps=20, seed=0, chunk=N, pieces=Pieces(None),
    )  # fmt: skip
    assert not [sign for sign in sanity(inputs) if sign.startswith("random noise breaks")]


def test_keeping_pieces_changes_no_sign(trained, tmp_path):
    networks, test = trained
    model = broken(networks[0], "quantised")
    found = signs(model, test)
    arguments = {"ball": lambda radius: build("linf", radius), "eps": EPS, "steps": 20, "seed": 0, "chunk": N}
    for _ in range(2):
        inputs = SanityInputs(model, test.images(slice(0, N)), test.true[:N], pieces=Pieces(tmp_path), **arguments)
        assert sanity(inputs) == found


def test_what_larger_balls_break_is_not_put_down_to_the_first(trained):
    """Random noise is compared with what PGD breaks at the radius itself."""
    networks, test = trained
    inputs = SanityInputs(
        networks[0].eval(), test.images(slice(0, N)), test.true[:N], ball=lambda radius: build("linf", radius), eps=EPS,
        steps=20, seed=0, chunk=N, pieces=Pieces(None),
    )  # fmt: skip
    attack = REGISTRY.options("pgd", steps=20)
    white = inputs.correct("pgd", attack, EPS)
    before = white.copy()
    assert before.any()
    _radius(inputs, attack, white)
    assert (white == before).all()


def test_what_any_radius_breaks_is_broken():
    """An unbounded attack that fails by its large steps says nothing of examples which smaller balls break."""

    class Told(SanityInputs):
        def correct(self, name, options, eps):
            return np.full(N, name == "pgd-unbounded")

    inputs = Told(
        nn.Identity(), torch.zeros(N, 1, 2, 2), torch.zeros(N, dtype=torch.long),
        ball=lambda radius: build("linf", radius), eps=EPS, steps=20, seed=0, chunk=N, pieces=Pieces(None),
    )  # fmt: skip
    assert _radius(inputs, None, np.full(N, True)) == []


@pytest.mark.parametrize(("norm", "everything"), [("linf", 1.0), ("l2", 4.0)])
def test_the_unbounded_ball_holds_every_image(norm, everything):
    """4x4 pixels: from black to white it is 4 under L2."""
    radii = {}

    class Told(SanityInputs):
        def correct(self, name, options, eps):
            radii[name] = eps
            return np.full(N, False)

    inputs = Told(
        nn.Identity(), torch.zeros(N, 1, 4, 4), torch.zeros(N, dtype=torch.long),
        ball=lambda radius: build(norm, radius), eps=0.1, steps=20, seed=0, chunk=N, pieces=Pieces(None),
    )  # fmt: skip
    _radius(inputs, None, np.full(N, False))
    assert radii == pytest.approx({"pgd-2": 0.2, "pgd-4": 0.4, "pgd-unbounded": everything})


def test_a_rise_is_one_from_the_radius_before():
    """PGD breaks nearly all at twice the radius and fails at four times; at the radius itself it breaks none."""
    asked = {}

    class Told(SanityInputs):
        def correct(self, name, options, eps):
            asked[name] = options
            return np.full(N, name == "pgd-4")

    inputs = Told(
        nn.Identity(), torch.zeros(N, 1, 4, 4), torch.zeros(N, dtype=torch.long),
        ball=lambda radius: build("linf", radius), eps=10 / 255, steps=5, seed=0, chunk=N, pieces=Pieces(None),
    )  # fmt: skip
    (flag,) = _radius(inputs, None, np.full(N, True))
    assert "accuracy rises from 0.0% to 100.0% when eps grows from 20/255 to 40/255" in flag
    assert asked["pgd-unbounded"].steps == 20, "of fewer steps not all would reach the other end"
