"""Compiled steps against the plain ones, on the CPU."""

import dataclasses
from functools import partial
from pathlib import Path

import pytest
import torch
from functorch.compile import make_boxed_func
from packaging.version import Version
from tiny_training import early, plan
from torch import nn
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.testing import CompileCounterWithBackend

from sglr import models
from sglr.config import parse
from sglr.models.compiling import compiled
from sglr.threat import Threat
from sglr.training.attacking import adversarial
from sglr.training.learner import Learner
from sglr.training.precision import computing, memory_format
from sglr.training.step import take

CPU = torch.device("cpu")
# Torch 2.6 cannot say that it gave up.
AS_TORCH_2_7 = pytest.mark.skipif(Version(torch.__version__) < Version("2.7"), reason="needs a newer torch")
WHOLE = Version(torch.__version__) >= Version("2.11")
METHODS = parse((Path(__file__).parents[2] / "params.yaml").read_text())["methods"]
SGLR = {"objective": "at", "labels": {"name": "refinement", "start_epoch": 1}, "weights": "none"}
TRADES = {"objective": "trades", "labels": "hard", "weights": "awp"}


@pytest.fixture(autouse=True)
def _forget() -> None:
    """Torch counts what it compiled per function, and these tests make many networks of few."""
    torch._dynamo.reset()


def test_where_it_compiles():
    network = nn.Linear(2, 2)
    assert compiled(network, CPU, "never") is network
    assert compiled(network, CPU, "auto") is network
    assert compiled(network, torch.device("cuda"), "never") is network
    made = compiled(network, CPU, "always")
    assert made is not network
    assert models.checkpoint.unwrap(made) is network


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["small_cnn", "wrn"])
def test_a_step_has_no_graph_breaks_and_its_attack_no_gradients_of_weights(params, monkeypatch, name, precision):
    """A CUDA graph is made of what stands between two breaks. Pre-activation networks fold in part only."""
    graphs: dict[str, list[torch.fx.GraphModule]] = {"forward": [], "backward": []}

    def keep(kind):
        def compiler(graph, example):
            graphs[kind].append(graph)
            return make_boxed_func(graph.forward)

        return compiler

    backend, real = aot_autograd(fw_compiler=keep("forward"), bw_compiler=keep("backward")), torch.compile
    monkeypatch.setattr(torch, "compile", lambda network, **options: real(network, backend=backend))
    chosen = plan(params, SGLR, compile="always", precision=precision)
    options = {"depth": 10, "width": 1} if name == "wrn" else {}
    model = models.build(name, num_classes=4, shape=(1, 8, 8), generator_seed=0, **options)
    learner = Learner.build(chosen, model, torch.arange(8) % 4, 4)
    x = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    take(chosen, learner, x, torch.arange(8) % 4, torch.arange(8), 1, 0)
    # Under attack, in training and, without a backward pass, on natural images. An attack's step is one graph, where
    # torch is new enough: its gradient is no pass of its own.
    whole = learner.networks.ascent is not None
    assert whole == WHOLE
    assert {kind: len(found) for kind, found in graphs.items()} == {"forward": 3, "backward": 1 if whole else 2}
    attack = graphs["forward"][0] if whole else graphs["backward"][0]
    for graph, wanted in ((attack, False), (graphs["backward"][-1], True)):
        nodes = [node for node in graph.graph.nodes if node.target is torch.ops.aten.convolution_backward.default]
        assert {node.args[-1][1] for node in nodes} == {wanted}


@torch._functorch.config.patch(donated_buffer=True)
def test_what_is_for_any_size_gives_several_gradients_of_one_forward_pass(monkeypatch):
    """As FAB asks for them; and one compiled network serves all batches but that of one image."""
    real, counted = torch.compile, CompileCounterWithBackend("aot_eager")
    monkeypatch.setattr(
        torch, "compile", lambda network, **options: real(network, backend=counted, dynamic=options["dynamic"])
    )
    model = models.build("small_cnn", num_classes=4, shape=(1, 8, 8), generator_seed=0).eval()
    network = compiled(model.requires_grad_(False), CPU, "always", any_size=True)
    for size in (6, 3, 2, 5):
        x = torch.rand(size, 1, 8, 8, generator=torch.Generator().manual_seed(size)).requires_grad_()
        logits, expected = network(x), model(x)
        for column in range(4):
            found, wanted = (
                torch.autograd.grad(each[:, column].sum(), x, retain_graph=True)[0] for each in (logits, expected)
            )
            torch.testing.assert_close(found, wanted)
    assert counted.frame_count == 1


def test_a_smaller_batch_is_not_compiled_for(monkeypatch):
    real, counted = torch.compile, CompileCounterWithBackend("aot_eager")
    monkeypatch.setattr(torch, "compile", lambda network, **options: real(network, backend=counted, dynamic=False))
    model = models.build("small_cnn", num_classes=4, shape=(1, 8, 8), generator_seed=0).eval()
    network = compiled(model, CPU, "always", batch=6)
    for size in (6, 2, 6, 5):
        x = torch.rand(size, 1, 8, 8, generator=torch.Generator().manual_seed(size))
        torch.testing.assert_close(network(x), model(x))
    assert counted.frame_count == 1


@AS_TORCH_2_7
@pytest.mark.parametrize("method", ["sglr", "at_natural", "at_ensembling", "at_adr", "awp_sglr", "trades_sat"])
def test_nothing_is_left_uncompiled_for_the_number_of_its_variants(params, monkeypatch, method):
    """Torch gives up after eight: modes, gradients or none, of all networks together. These methods have the most."""
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda network, **options: real(network, backend="eager"))
    chosen = plan(params, early(METHODS[method]), compile="always", precision="bf16")
    model = models.build("small_cnn", num_classes=4, shape=(1, 4, 4), generator_seed=0, channels=(4, 8), hidden=8)
    x, y = torch.rand(12, 1, 4, 4, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 4
    learner = Learner.build(chosen, model, y, 4)
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        for epoch in (1, 2):
            for step, index in enumerate((torch.arange(8), torch.arange(8, 12))):
                take(chosen, learner, x[index], y[index], index, epoch, step)


def ball_around(x: torch.Tensor, seed: int, threat: Threat) -> torch.Tensor:
    return threat.random_start(x, torch.Generator().manual_seed(seed))


@pytest.mark.skipif(not WHOLE, reason="needs a newer torch")
@pytest.mark.parametrize(
    ("precision", "objective", "norm", "random_start", "soft"),
    [
        ("fp32", "at", "linf", True, False),
        ("fp32", "at", "linf", True, True),
        ("fp32", "trades", "l2", True, False),
        ("fp32", "mart", "linf", False, False),
        ("bf16", "at", "l2", False, False),
        ("bf16", "at", "linf", True, True),
        ("bf16", "trades", "linf", True, False),
    ],
)
def test_a_compiled_attack_is_the_plain_one_in_one_graph(
    params, monkeypatch, precision, objective, norm, random_start, soft
):
    """Bit for bit, with the operations left as they are; and a loss made anew for each batch is no new graph."""
    real, counted = torch.compile, CompileCounterWithBackend("aot_eager")
    monkeypatch.setattr(
        torch, "compile", lambda module, **options: real(module, backend=counted, dynamic=False, fullgraph=True)
    )
    params["threat"]["norm"] = norm
    method = {"objective": objective, "labels": "hard", "weights": "none"}
    params["train"]["attack"]["random_start"] = random_start
    chosen = plan(params, method, compile="always", precision=precision)
    model = models.build("small_cnn", num_classes=4, shape=(1, 8, 8), generator_seed=0)
    learner = Learner.build(chosen, model, torch.arange(8) % 4, 4)
    assert learner.networks.ascent is not None
    plain = dataclasses.replace(learner.networks, ascent=None, attacked=learner.networks.folded)
    for seed in (0, 1):
        generator = torch.Generator().manual_seed(seed)
        x, y = torch.rand(8, 1, 8, 8, generator=generator), torch.arange(8) % 4
        x = x.contiguous(memory_format=memory_format(precision, CPU))
        start = partial(ball_around, x, seed)
        goal = torch.rand(8, 4, generator=generator).softmax(1) if soft else None
        with computing(precision, CPU):
            whole, separate = (
                adversarial(chosen, dataclasses.replace(learner, networks=networks), x, y, 1, goal, None, start)
                for networks in (learner.networks, plain)
            )
        assert torch.equal(whole, separate)
        assert not torch.equal(whole, x)
        if seed == 0:
            compiled_once = counted.frame_count
    assert counted.frame_count == compiled_once


def steps(params: dict, method: dict, kind: str, precision: str, attack_bn: str = "eval") -> dict[str, torch.Tensor]:
    """Weights, statistics, targets and losses after a whole and a smaller batch."""
    chosen = plan(params, method, compile=kind, precision=precision, attack_bn=attack_bn)
    model = models.build("small_cnn", num_classes=4, shape=(1, 4, 4), generator_seed=0, channels=(4, 8), hidden=8)
    x, y = torch.rand(12, 1, 4, 4, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 4
    learner = Learner.build(chosen, model, y, 4)
    losses = []
    for step, index in enumerate((torch.arange(8), torch.arange(8, 12))):
        loss, predicted, _ = take(chosen, learner, x[index], y[index], index, 1, step)
        losses += [loss, predicted.float()]
    targets = learner.labels.targets(1, torch.arange(12))
    return {**model.state_dict(), "targets": targets, "losses": torch.cat([each.view(-1) for each in losses])}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "precision", "attack_bn"),
    [(SGLR, "fp32", "eval"), (SGLR, "bf16", "eval"), (TRADES, "fp32", "eval"), (SGLR, "fp32", "train")],
    ids=["sglr", "sglr bf16", "trades awp", "attack in train mode"],
)
def test_a_compiled_step_is_the_plain_one(params, method, precision, attack_bn):
    """Up to rounding: 1e-4 in float32; 0.02 where bfloat16's rounding is elsewhere, as inductor fuses operations."""
    plain, made = (steps(params, method, kind, precision, attack_bn) for kind in ("never", "always"))
    assert plain.keys() == made.keys()
    tolerance = 1e-4 if precision == "fp32" else 0.02
    for name, value in plain.items():
        torch.testing.assert_close(made[name], value, rtol=tolerance, atol=tolerance, msg=name)
    assert any(not torch.equal(made[name], value) for name, value in plain.items())
