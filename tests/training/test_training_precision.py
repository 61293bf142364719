"""Reduced precision: where it may not reach, what it costs in success of the attack, and that it leaves no trace."""

import copy
from pathlib import Path

import pytest
import torch
from by_hand import Net
from tiny_training import assert_resumes, net, plan, splits
from torch import nn

from sglr import files, models
from sglr.attacks import attack_mode, pgd
from sglr.models.folding import Folded
from sglr.random import torch_stream
from sglr.threat import L2, Linf
from sglr.training import fit
from sglr.training.learner import Learner
from sglr.training.precision import computing, exact_ends, memory_format, monitoring
from sglr.training.state import load_optimizer
from sglr.training.step import take

CPU = torch.device("cpu")
SGLR = {"objective": "at", "labels": {"name": "refinement", "start_epoch": 2}, "weights": "none"}
HARD = {"objective": "at", "labels": "hard", "weights": "none"}
AWP = {"objective": "trades", "labels": "hard", "weights": "awp"}


def settings() -> tuple:
    return (
        torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32, torch.is_autocast_enabled("cpu"),
        torch.is_autocast_cache_enabled(),
    )  # fmt: skip


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_settings_are_put_back(precision):
    before = settings()
    with computing(precision, CPU):
        inside = settings()
    with pytest.raises(KeyError), computing(precision, CPU):
        raise KeyError
    assert settings() == before
    assert inside[:3] == ("high" if precision == "tf32" else "highest", precision == "tf32", precision == "bf16")


def test_images_and_logits_stay_in_float32():
    model = models.build("resnet18", num_classes=10, shape=(3, 8, 8), generator_seed=0)
    exact_ends(model)
    seen: dict[str, torch.dtype] = {}

    def watch(name):
        return lambda module, inputs, output: seen.update({f"{name} in": inputs[0].dtype, f"{name} out": output.dtype})

    for name in ("conv1", "layer1", "layer4", "head"):
        model.get_submodule(name).register_forward_hook(watch(name))
    x = torch.rand(2, 3, 8, 8)
    with computing("bf16", CPU):
        logits = model(x)
        assert torch.is_autocast_enabled("cpu")
    assert logits.dtype == torch.float32
    # What its own hook has seen last is what the convolution returned, in float32.
    assert seen["conv1 in"] == torch.float32
    assert seen["layer4 out"] == seen["head in"] == seen["head out"] == torch.bfloat16
    assert model(x).dtype == torch.float32
    assert seen["layer4 out"] == torch.float32


def test_the_first_convolution_computes_in_float32(monkeypatch):
    """Its result has bits that a product in bfloat16 would not have: images a tenth of a pixel step apart differ."""
    model = models.build("small_cnn", num_classes=10, shape=(1, 8, 8), generator_seed=0).eval()
    x = torch.full((1, 1, 8, 8), 0.99)
    found = []

    def watched(self, *arguments):
        found.append(inner(self, *arguments))
        return found[-1]

    inner = nn.Conv2d._conv_forward
    monkeypatch.setattr(nn.Conv2d, "_conv_forward", watched)
    exact_ends(model)
    with computing("bf16", CPU):
        model(x)
        model(x + 1e-4)
    assert found[0].dtype == torch.float32
    assert found[1].dtype == torch.bfloat16  # of the second convolution
    assert not torch.equal(found[0], found[2])
    assert torch.equal(x.bfloat16(), (x + 1e-4).bfloat16())


class Untraceable(Net):
    """What it computes depends on values, so that it is attacked as it is."""

    def forward(self, x):
        return super().forward(x) if float(x.detach().sum()) > 0 else super().forward(x * 2)


@pytest.mark.parametrize("kind", [Net, Untraceable])
def test_training_leaves_nothing_on_the_model(params, kind):
    """Else the next training of it could not fold its attack, and would be another."""
    model, fresh = kind(), kind()
    fit(plan(params, SGLR, precision="bf16"), model, *splits())
    assert not model._forward_hooks
    assert [type(module) for module in model.modules()] == [type(module) for module in fresh.modules()]
    assert Folded(model).folds == Folded(fresh).folds == (0 if kind is Untraceable else Folded(net()).folds)


def test_without_convolutions_the_first_linear_layer_computes_in_float32():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 1000), nn.ReLU(), nn.Linear(1000, 3))
    exact_ends(model)
    x = torch.full((1, 64), 0.99)
    with computing("bf16", CPU):
        one, other, hidden = model[0](x), model[0](x + 1e-4), model[:-1](x)
    assert one.dtype == hidden.dtype == torch.bfloat16
    assert torch.equal(x.bfloat16(), (x + 1e-4).bfloat16())
    assert not torch.equal(one, other)


def test_a_convolution_keeps_its_kind_its_names_and_its_copies():
    class Padded(nn.Conv2d):
        def forward(self, x):
            return super().forward(nn.functional.pad(x, (1, 1, 1, 1)))

    model = nn.Sequential(Padded(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3))
    x, names = torch.rand(1, 1, 8, 8), list(model.state_dict())
    expected = model(x)
    exact_ends(model)
    exact_ends(model)
    assert list(model.state_dict()) == names
    assert torch.equal(copy.deepcopy(model)(x), expected)
    with computing("bf16", CPU):
        assert model[0](x).dtype == torch.bfloat16
        assert model(x).shape == expected.shape


def test_what_is_measured_after_an_epoch_is_measured_in_full_precision(params, monkeypatch):
    """By default torch lets convolutions on CUDA use TF32."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    seen: dict[bool, set] = {True: set(), False: set()}

    class Watched(Net):
        def forward(self, x):
            seen[self.training].add(settings()[:3])
            return super().forward(x)

    fit(plan(params, SGLR, precision="tf32"), Watched(), *splits())
    assert seen[True] == {("high", True, False)}
    assert ("highest", False, False) in seen[False]
    # The other looks at the model in eval mode are for the number of its classes, and to trace it.
    assert len(seen[False]) <= 2


@pytest.mark.filterwarnings("ignore:.*CUDA is not available")
@pytest.mark.parametrize(("precision", "tf32"), [("fp32", False), ("tf32", True), ("bf16", True)])
def test_on_a_gpu_what_bfloat16_spares_has_tensor_cores_and_cudnn_tries(precision, tf32):
    before, tried = settings(), torch.backends.cudnn.benchmark
    with computing(precision, torch.device("cuda")):
        assert settings()[:2] == ("high" if tf32 else "highest", tf32)
        assert torch.backends.cudnn.benchmark
    assert (settings(), torch.backends.cudnn.benchmark) == (before, tried)


@pytest.mark.parametrize(
    ("precision", "device", "expected"),
    [
        ("fp32", "cpu", ("highest", False)), ("bf16", "cpu", ("highest", False)), ("fp32", "cuda", ("highest", False)),
        ("tf32", "cuda", ("high", True)), ("bf16", "cuda", ("high", True)),
    ],
)  # fmt: skip
def test_a_gpu_that_trains_in_less_is_watched_in_tf32(precision, device, expected):
    before = settings()
    with monitoring(precision, torch.device(device)):
        assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == expected
    assert settings() == before


@pytest.mark.parametrize("method", [SGLR, AWP])
def test_weights_and_tables_stay_in_float32(params, method):
    chosen = plan(params, method, precision="bf16")
    trained = fit(chosen, net(), *splits())
    exact = fit(plan(params, method, precision="fp32"), net(), *splits())
    assert {value.dtype for value in trained.last.values() if value.is_floating_point()} == {torch.float32}
    assert trained.refined.dtype == torch.float32
    assert trained.refined.sum(1).allclose(torch.ones(24))
    # It is another training, but not far from the exact one.
    name = next(name for name in exact.last if name.endswith("weight"))
    assert not torch.equal(trained.last[name], exact.last[name])
    assert trained.history[-1]["train/loss"] == pytest.approx(exact.history[-1]["train/loss"], rel=0.05)


def test_a_training_in_bfloat16_resumes_bit_for_bit(params, tmp_path: Path):
    params["train"]["precision"] = "bf16"
    assert_resumes(params, SGLR, tmp_path)


def test_momentum_lies_as_its_weight_does_after_a_file(params, tmp_path):
    """Files hold tensors in one order; a fused step on a GPU refuses momentum in another than the weight's."""
    chosen = plan(params, HARD, precision="bf16")
    x, y = torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 4
    learners = []
    for _ in range(2):
        model = models.build("wrn", num_classes=4, shape=(3, 8, 8), generator_seed=0, depth=10, width=1)
        learners.append(Learner.build(chosen, model, y, 4))
    take(chosen, learners[0], x, y, torch.arange(8), 1, 0)
    written = learners[0].optimizer.state_dict()
    written["param_groups"][0]["fused"] = True
    files.save_state(tmp_path / "state", written)
    load_optimizer(learners[1].optimizer, files.load_state(tmp_path / "state"))
    assert learners[1].optimizer.param_groups[0]["fused"] is None
    pairs = [zip(one.model.parameters(), one.optimizer.state.values(), strict=True) for one in learners]
    for (_, wanted), (weight, found) in zip(*pairs, strict=True):
        assert torch.equal(found["momentum_buffer"], wanted["momentum_buffer"])
        assert found["momentum_buffer"].stride() == weight.stride()
    assert any(not weight.is_contiguous() for weight in learners[1].model.parameters())


@pytest.mark.parametrize(("objective", "cosine"), [("standard", 0.93), ("at", 0.5)])
def test_a_step_in_bfloat16_is_near_the_exact_one(params, objective, cosine):
    """One step of resnet18 from the same untrained weights: loss within 1%, and the direction of the update.

    An untrained network's gradient at random images is badly conditioned (float32 against float64 is not); the attack
    turns the signs of some gradients, which makes other images of 9% of the pixels.
    """
    x, y = torch.rand(16, 3, 16, 16, generator=torch.Generator().manual_seed(0)), torch.arange(16) % 10
    updates, losses = [], []
    for precision in ("fp32", "bf16"):
        chosen = plan(params, HARD | {"objective": objective}, precision=precision, batch_size=16)
        model = models.build("resnet18", num_classes=10, shape=(3, 16, 16), generator_seed=0)
        learner = Learner.build(chosen, model, y, 10)
        before = torch.cat([value.detach().flatten() for value in model.parameters()])
        loss, *_ = take(chosen, learner, x, y, torch.arange(16), 1, 0)
        losses.append(float(loss))
        updates.append(torch.cat([value.detach().flatten() for value in model.parameters()]) - before)
    assert losses[1] == pytest.approx(losses[0], rel=0.01)
    assert float(nn.functional.cosine_similarity(*updates, dim=0)) > cosine


@pytest.mark.parametrize(
    ("precision", "device", "last"),
    [("fp32", "cpu", False), ("tf32", "cpu", False), ("bf16", "cpu", True),
     ("fp32", "cuda", False), ("tf32", "cuda", True), ("bf16", "cuda", True)],
)  # fmt: skip
def test_where_channels_come_last(precision, device, last):
    assert (memory_format(precision, torch.device(device)) == torch.channels_last) == last


@pytest.mark.parametrize("threat", [Linf(0.1), L2(1.0)])
def test_random_starts_do_not_depend_on_how_images_lie_in_memory(threat):
    x = torch.rand(3, 3, 4, 5)
    starts = [
        threat.random_start(x.contiguous(memory_format=layout), torch_stream(0, "start"))
        for layout in (torch.contiguous_format, torch.channels_last)
    ]
    assert torch.equal(*starts)


def test_attacks_in_bfloat16_succeed_as_often(digits_model):
    """On a trained model, within half a point of 500 digits."""
    model, x, y = digits_model
    ball, success = Linf(0.1), []
    for precision, kind in (("fp32", None), ("bf16", torch.bfloat16)):
        network = Folded(model, kind)
        exact_ends(network)
        with computing(precision, CPU), attack_mode(model, "eval"):
            x_adv = pgd(network, x, y, threat=ball, step_size=0.025, steps=10, generator=torch_stream(0, "attack"))
        with torch.no_grad():
            success.append(float((model(x_adv).argmax(1) != y).float().mean()))
    assert 0.1 < success[0] < 0.95
    assert success[1] >= success[0] - 0.005


@pytest.fixture
def digits_model(params):
    """A small network trained for a few epochs on digits, with 500 test digits."""
    from sklearn.datasets import load_digits

    from sglr.data import Split

    found = load_digits()
    x = torch.from_numpy(found.images).float().div(16)[:, None]
    y = torch.from_numpy(found.target).long()
    chosen = plan(params, HARD, batch_size=100, epochs=8)
    train = Split(x[:1000], y[:1000], y[:1000])
    model = models.build("small_cnn", num_classes=10, shape=(1, 8, 8), generator_seed=0)
    fit(chosen, model, train)
    return model.eval(), x[1000:1500], y[1000:1500]
