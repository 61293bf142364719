"""What only a GPU can show: its kernels, precisions, CUDA graphs, waits and collectives, each against the plain way.

Skipped where there is none. `SGLR_TEST_GPU=cpu python -m pytest tests/test_gpu.py` runs on a CPU what can run there, to
try the tests themselves.
"""

import contextlib
import copy
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_training import early, plan

from sglr import evaluation, models
from sglr.attacks import attack_mode, pgd
from sglr.config import parse
from sglr.data import Split
from sglr.models.folding import Folded
from sglr.threat import Linf
from sglr.training import Hooks, Interrupted, Plan, Snapshots, TrainingResult, fit
from sglr.training.distributed import ALONE, Team, together
from sglr.training.learner import Learner
from sglr.training.precision import computing, exact_ends
from sglr.training.state import load_optimizer
from sglr.training.step import take

DEVICE = torch.device(os.environ.get("SGLR_TEST_GPU", "cuda"))
CUDA = DEVICE.type == "cuda"
METHODS = parse((Path(__file__).parents[1] / "params.yaml").read_text())["methods"]
SGLR = {"objective": "at", "labels": {"name": "refinement", "start_epoch": 2}, "weights": "none"}
HARD = {"objective": "at", "labels": "hard", "weights": "none"}
N, CLASSES, SHAPE = 24, 4, (3, 16, 16)
SMALL = {"channels": (8, 16), "hidden": 32}

pytestmark = [
    pytest.mark.skipif(CUDA and not torch.cuda.is_available(), reason="needs a GPU"),
    # The first kernels of a process, and what is compiled, take their time.
    pytest.mark.timeout(1200),
]
only_cuda = pytest.mark.skipif(not CUDA, reason="needs a GPU")


@pytest.fixture(autouse=True)
def _forget() -> None:
    """Torch counts what it compiled per function, and these tests make many networks of few."""
    torch._dynamo.reset()


def data(device: torch.device) -> Split:
    generator = torch.Generator().manual_seed(5)
    x, true = torch.rand(N, *SHAPE, generator=generator), torch.arange(N) % CLASSES
    given = torch.where(torch.arange(N) % 3 == 0, (true + 1) % CLASSES, true)
    return Split(*(values.to(device) for values in (x, given, true)))


def network(name: str, device: torch.device, **options: Any) -> torch.nn.Module:
    return models.build(name, num_classes=CLASSES, shape=SHAPE, generator_seed=0, **options).to(device)


@pytest.fixture
def same_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU draws other numbers than a CPU: here both begin the attack where the CPU does."""

    drawn = Linf.random_start

    def start(self: Linf, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return drawn(self, x.cpu(), torch.Generator().manual_seed(generator.initial_seed())).to(x.device)

    monkeypatch.setattr(Linf, "random_start", start)


class Side:
    """A training on a device, whose steps are compared with those of another one."""

    def __init__(self, one: Plan, device: torch.device, name: str, **options: Any) -> None:
        self.plan, self.split = one, data(device)
        self.learner = Learner.build(one, network(name, device, **options), self.split.given, CLASSES)

    def weights(self) -> torch.Tensor:
        return torch.cat([value.detach().cpu().flatten() for value in self.learner.model.parameters()])

    def follow(self, other: "Side") -> None:
        """Take over the other's weights, momentum and targets, each in the memory where this one's are."""
        learner, theirs = self.learner, other.learner
        learner.model.load_state_dict(theirs.model.state_dict())
        load_optimizer(learner.optimizer, copy.deepcopy(theirs.optimizer.state_dict()))
        learner.labels.load_state_dict(copy.deepcopy(theirs.labels.state_dict()))

    def step(self, epoch: int, number: int) -> tuple[float, torch.Tensor]:
        """The loss of a step on the batch of this number, and how the weights moved."""
        index = torch.arange(N, device=self.split.given.device).split(10)[number]
        before = self.weights()
        loss, *_ = take(
            self.plan, self.learner, self.split.images(index), self.split.given[index], index, epoch, number
        )
        return float(loss), self.weights() - before


def compare(plain: Side, fast: Side, loss: float, cosine: float) -> None:
    """Steps on batches of 10, 10 and 4, twice before refinement and twice after, each from the same weights.

    What was compiled is warmed up, recorded and replayed on the way. Losses agree within a share ``loss``, and updates
    point the same way; they cannot agree more, since an attack turns the signs of gradients that are near zero.
    """
    for epoch in (1, 1, 2, 2):
        for number in range(3):
            fast.follow(plain)
            (wanted, way), (found, other) = plain.step(epoch, number), fast.step(epoch, number)
            assert found == pytest.approx(wanted, rel=loss), (epoch, number)
            alike = torch.nn.functional.cosine_similarity(way.double(), other.double(), dim=0)
            assert float(alike) > cosine, (epoch, number)
            tables = [side.learner.labels.state_dict().get("p", torch.zeros(0)).cpu() for side in (plain, fast)]
            torch.testing.assert_close(*tables, rtol=loss, atol=loss)


def chosen(params: dict, method: dict, **train: Any) -> Plan:
    # With the usual rate a ResNet leaves all bounds on these few images.
    slow = params["train"]["optimizer"] | {"lr": 0.01}
    return plan(params, early(method), **{"batch_size": 10, "optimizer": slow} | train)


@pytest.mark.usefixtures("same_starts")
@pytest.mark.parametrize("method", METHODS)
def test_every_method_steps_as_on_the_cpu(params, method):
    one = chosen(params, METHODS[method])
    here, there = (Side(one, device, "small_cnn", **SMALL) for device in (torch.device("cpu"), DEVICE))
    compare(here, there, 1e-3, 0.99)


@pytest.mark.usefixtures("same_starts")
@pytest.mark.parametrize(("name", "options"), [("wrn", {"depth": 10, "width": 2}), ("resnet18", {})])
@pytest.mark.parametrize(
    ("precision", "kind", "loss", "cosine"),
    [
        ("fp32", "always", 2e-3, 0.98), ("tf32", "never", 0.02, 0.8), ("tf32", "always", 0.02, 0.8),
        ("bf16", "never", 0.1, 0.5), ("bf16", "always", 0.1, 0.5),
    ],
)  # fmt: skip
def test_fast_steps_are_near_the_plain_ones(params, name, options, precision, kind, loss, cosine):
    """Under bfloat16 so many signs turn in the attack on an untrained ResNet that updates agree to 0.7 on a CPU."""
    plain = Side(chosen(params, SGLR), DEVICE, name, **options)
    compare(plain, Side(chosen(params, SGLR, precision=precision, compile=kind), DEVICE, name, **options), loss, cosine)


@only_cuda
@pytest.mark.parametrize(("kind", "precision"), [("never", "fp32"), ("always", "fp32"), ("always", "bf16")])
@pytest.mark.parametrize("method", METHODS)
def test_no_step_waits_for_the_gpu(params, method, kind, precision):
    params["data"]["augment"] = {"crop_padding": 2, "flip": True}
    one = plan(params, early(METHODS[method]), batch_size=8, compile=kind, precision=precision)
    model, split = network("small_cnn", DEVICE, **SMALL), data(DEVICE)
    learner = Learner.build(one, model, split.given, CLASSES)
    index = torch.arange(8, device=DEVICE)
    for number in range(8):  # the first ones compile and record
        with _waits("error" if number > 5 else "default"):
            take(one, learner, split.images(index), split.given[index], index, 1 + number % 2, 0)


@contextlib.contextmanager
def _waits(mode: str) -> Iterator[None]:
    torch.cuda.set_sync_debug_mode(mode)
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def digits(params: dict, **train: Any) -> tuple[torch.nn.Module, torch.Tensor, torch.Tensor]:
    """A small network trained for twelve epochs on digits, with 500 test digits."""
    from sklearn.datasets import load_digits

    found = load_digits()
    x = torch.from_numpy(found.images).float().div(16)[:, None].to(DEVICE)
    y = torch.from_numpy(found.target).long().to(DEVICE)
    one = plan(params, HARD, **{"batch_size": 100, "epochs": 12} | train)
    model = models.build("small_cnn", num_classes=10, shape=(1, 8, 8), generator_seed=0).to(DEVICE)
    fit(one, model, Split(x[:1000], y[:1000], y[:1000]))
    return model.eval(), x[1000:1500], y[1000:1500]


def success(model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor, precision: str) -> float:
    """Share of images that an attack computed in this precision breaks, judged in float32."""
    network = Folded(model, torch.bfloat16 if precision == "bf16" else None)
    if precision == "bf16":
        exact_ends(network)
    with computing(precision, DEVICE), attack_mode(model, "eval"):  # type: ignore[arg-type]
        x_adv = pgd(network, x, y, threat=Linf(0.1), step_size=0.025, steps=10, random_start=False)
    with computing("fp32", DEVICE), torch.no_grad():
        return float((model(x_adv).argmax(1) != y).float().mean())


def test_attacks_in_bfloat16_and_tf32_succeed_as_often(params):
    """Within half a point of 500 digits."""
    model, x, y = digits(params)
    exact = success(model, x, y, "fp32")
    assert 0.1 < exact < 0.95
    for precision in ("tf32", "bf16"):
        assert success(model, x, y, precision) >= exact - 0.005, precision


def test_fast_trainings_end_as_robust(params):
    """Within 6 points of 500 digits: two deviations of such a difference are 5."""
    robust = {}
    for precision, kind in (("fp32", "never"), ("fp32", "always"), ("bf16", "always")):
        model, x, y = digits(params, precision=precision, compile=kind)
        robust[precision, kind] = 1 - success(model, x, y, "fp32")
    assert max(robust.values()) - min(robust.values()) < 0.06, robust


def test_an_interrupted_training_goes_on(params, tmp_path):
    """To the same but for the order of additions, which some of a GPU's kernels do not fix."""
    one = chosen(params, SGLR, precision="bf16", compile="always", epochs=3)
    split = data(DEVICE)
    whole = fit(one, network("resnet18", DEVICE), split, split)
    calls = iter(range(1, 100))
    kept = Snapshots(tmp_path)
    with pytest.raises(Interrupted):
        fit(one, network("resnet18", DEVICE), split, split, hooks=Hooks(kept, should_stop=lambda: next(calls) == 5))
    found = fit(one, network("resnet18", DEVICE), split, split, hooks=Hooks(kept))
    torch.testing.assert_close(found.refined, whole.refined, rtol=0.05, atol=0.05)
    assert [row["train/loss"] for row in found.history] == pytest.approx(
        [row["train/loss"] for row in whole.history], rel=0.05
    )


def test_a_compiled_evaluation_finds_the_same(params, tmp_path, monkeypatch):
    """AutoAttack among it; of forty digits one may differ, where two logits are equal but for rounding."""
    monkeypatch.syspath_prepend(Path(__file__).parent / "evaluation")
    from evaluation_study import make

    params["threat"]["eps_255"] = 10.0
    attacks = {"pgd3": {"name": "pgd", "steps": 3}, "autoattack": {"name": "autoattack", "n_examples": 20}}
    config, prepared, trained = make(params, tmp_path, attacks=attacks)
    fast = config.evaluate.model_copy(update={"compile": "always"})
    plain, made = (
        evaluation.evaluate(one, prepared, trained, device=DEVICE)
        for one in (config, config.model_copy(update={"evaluate": fast}))
    )
    for name in ("best", "last"):
        for attack, correct in plain.correct[name].items():
            assert (made.correct[name][attack] != correct).sum() <= 1, f"{name} {attack}"
    assert not np.array_equal(plain.correct["last"]["natural"], plain.correct["last"]["pgd3"])


def work(team: Team, device: torch.device, one: Plan) -> TrainingResult:
    return fit(one, network("resnet18", device), data(device), team=team)


@pytest.mark.skipif(not CUDA or torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("kind", ["never", "always"])
def test_two_gpus_train_as_one_does(params, kind):
    """With batch norm, whose statistics they share."""
    one, plain = (chosen(params, SGLR, compile=compiled) for compiled in (kind, "never"))
    with together(2, torch.device("cuda"), work, one) as (team, device):
        found = work(team, device, one)
    expected = work(ALONE, DEVICE, plain)
    torch.testing.assert_close(found.refined, expected.refined, rtol=0.02, atol=0.02)
    assert found.history[-1]["train/loss"] == pytest.approx(expected.history[-1]["train/loss"], rel=0.02)
