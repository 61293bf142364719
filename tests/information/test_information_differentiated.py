"""Estimators that differentiate the network: gradients per example, information in weights, curvature, landscape."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sglr import models
from sglr.information.example_gradients import cross_entropy_loss, example_gradients, objective_loss
from sglr.information.gradients import last_layer_norms
from sglr.information.hessian import largest_eigenvalue
from sglr.information.landscape import direction, walk
from sglr.information.weights_information import difference, information, length
from sglr.labels import REGISTRY as LABELS
from sglr.labels import Batch
from sglr.objectives import REGISTRY, soft_cross_entropy


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def linear():
    """Logistic regression in float64: x (N, 4), targets (N, 3)."""
    torch.manual_seed(0)
    model = nn.Linear(4, 3).double().eval()
    x = torch.randn(12, 4, dtype=torch.float64)
    return model, x, torch.rand(12, 3, dtype=torch.float64).softmax(1)


@pytest.fixture(params=["small_cnn", "resnet18", pytest.param("preact_resnet18", marks=pytest.mark.slow), "wrn"])
def network(request):
    torch.manual_seed(1)
    options = {"small_cnn": {"channels": [4, 8], "hidden": 16}, "wrn": {"depth": 10, "width": 1}}.get(request.param, {})
    model = models.build(request.param, shape=(3, 8, 8), num_classes=5, **options)
    return model.eval(), torch.rand(5, 3, 8, 8), torch.rand(5, 5).softmax(1)


def one_by_one(model, loss, n):
    """Reference: autograd, one example at a time."""
    rows = []
    for i in range(n):
        rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss(i), list(model.parameters()))]))
    return torch.stack(rows).double()


def test_logistic_regression_by_hand(linear):
    model, x, t = linear
    found = example_gradients(model, cross_entropy_loss, (x, t), chunk=5)
    s = model(x).softmax(1)
    by_hand = torch.cat([(s - t)[:, :, None] * x[:, None], (s - t)[:, :, None]], 2).flatten(1)
    assert found.norms == pytest.approx(by_hand.norm(dim=1).detach().numpy(), rel=1e-12)


def test_networks_against_autograd(network):
    model, x, t = network
    start = {name: torch.randn_like(value) for name, value in model.named_parameters()}
    found = example_gradients(model, cross_entropy_loss, (x, t), chunk=2, direction=start)
    rows = one_by_one(model, lambda i: soft_cross_entropy(model(x[i : i + 1]), t[i : i + 1]).sum(), 5)
    assert found.norms == pytest.approx(rows.norm(dim=1).numpy(), rel=1e-4)
    along = torch.cat([value.flatten() for value in start.values()]).double()
    total = np.sum(list(found.projections.values()), axis=0)
    assert total == pytest.approx((rows @ along).numpy(), rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("penalised", [False, True])
@pytest.mark.parametrize("name", ["at", "trades", "mart"])
def test_all_terms_of_a_loss(name, penalised):
    """The objective's, weights of examples, and the label policy's penalty."""
    torch.manual_seed(2)
    model = models.build("small_cnn", shape=(1, 8, 8), num_classes=4, channels=[4, 8], hidden=8).eval()
    x, x_adv, t, y = torch.rand(6, 1, 8, 8), torch.rand(6, 1, 8, 8), torch.rand(6, 4).softmax(1), torch.arange(6) % 4
    objective = REGISTRY.options(name).build()
    weights, index = torch.linspace(0.5, 1.5, 6), torch.tensor([4, 0, 5, 1, 3, 2])
    policy = LABELS.options("ensembling", start_epoch=1, ramp_epochs=1).build(y, 4, 9)
    seen = {"natural": lambda bn: torch.randn(6, 4), "averaged": lambda: pytest.fail("no average is needed")}
    policy.before_attack(Batch(epoch=1, progress=0.0, index=index, **seen))
    penalty = partial(policy.penalty, 1) if penalised else lambda index: None
    inputs = (x, x_adv, t, y, weights, index)
    found = example_gradients(model, objective_loss(objective, penalty), inputs, chunk=4)

    def loss(i):
        part = slice(i, i + 1)
        outputs = objective.forward(model, x[part], x_adv[part])
        plain = objective.loss(outputs, t[part], y[part], weights[part])
        if not penalised:
            return plain
        # On TRADES the penalty is on natural predictions.
        s = (outputs.natural if name == "trades" else outputs.adversarial).softmax(1)
        p = policy.state_dict()["p"][index[part]]
        return plain + 300 * math.exp(-5) * ((s - p / p.sum(1, keepdim=True)) ** 2).mean()

    assert found.norms == pytest.approx(one_by_one(model, loss, 6).norm(dim=1).numpy(), rel=1e-4)


class Shifted(type(REGISTRY.options("at").build())):
    """Cross-entropy at an input that is moved in a way torch cannot vectorise."""

    def __init__(self, how):
        self.how = how

    def forward(self, model, x, x_adv):
        return super().forward(model, x, self.moved(model, x, x_adv))

    def moved(self, model, x, x_adv):
        if self.how == "drawn":
            return x_adv + 0.1 * torch.empty_like(x_adv).normal_(generator=stream(5))
        if self.how == "value":
            return x_adv * float(x_adv.max())
        if self.how == "list":
            return x_adv * max(x_adv.flatten().tolist())
        if self.how == "in place":
            moved = torch.zeros(x_adv.shape)
            moved += 2 * x_adv
            return moved
        point = x.detach().requires_grad_()
        with torch.enable_grad():
            return x_adv + torch.autograd.grad(model(point).sum(), point)[0]


@pytest.mark.parametrize("how", ["drawn", "value", "list", "in place", "gradient"])
def test_a_loss_that_cannot_be_vectorised_is_taken_example_by_example(network, how):
    model, x, targets = network
    loss, y = Shifted(how), torch.arange(len(x))
    inputs = (x, x, targets, y, torch.ones(len(x)), y)
    found = example_gradients(model, objective_loss(loss), inputs, chunk=2)
    for n, norm in enumerate(found.norms):
        model.zero_grad()
        moved = loss.moved(model, x[n : n + 1], x[n : n + 1]).detach()
        F.cross_entropy(model(moved), targets[n : n + 1]).backward()
        squares = sum(float(value.grad.double().square().sum()) for value in model.parameters())
        assert norm == pytest.approx(math.sqrt(squares), rel=1e-4)


def test_any_other_error_of_a_loss_is_raised(linear):
    def broken(forward, x, target):
        raise RuntimeError("out of cheese")

    with pytest.raises(RuntimeError, match="out of cheese"):
        example_gradients(linear[0], broken, linear[1:], chunk=4)


def test_the_head_alone_is_the_closed_form(network):
    model, x, t = network
    for name, value in model.named_parameters():
        value.requires_grad_(name.startswith("head"))
    rest = {name: torch.zeros_like(value) for name, value in model.named_parameters()}
    with torch.no_grad():
        features = model.features(x)
        closed = last_layer_norms(model.head(features).double().softmax(1), t, features)
    unit = {}
    for i in range(5):
        logits = model(x[i : i + 1])
        grads = torch.autograd.grad(soft_cross_entropy(logits, t[i : i + 1]).sum(), list(model.head.parameters()))
        unit = {f"head.{name}": g for (name, _), g in zip(model.head.named_parameters(), grads, strict=True)}
        found = example_gradients(model, cross_entropy_loss, (x, t), chunk=5, direction=rest | unit)
        assert found.projections["head"][i] == pytest.approx(closed[i] ** 2, rel=1e-4)


def test_train_mode_is_refused(linear):
    model, x, t = linear
    model.train()
    with pytest.raises(ValueError, match="eval mode"):
        example_gradients(model, cross_entropy_loss, (x, t), chunk=5)
    with pytest.raises(ValueError, match="eval mode"):
        largest_eigenvalue(model, x, t, iterations=1, chunk=5, generator=stream())


def test_a_direction_that_does_not_fit_is_named(linear):
    model, x, t = linear
    for name, shape in (("bias", "(3,)"), ("extra", "absent")):
        with pytest.raises(ValueError, match=f"'{name}' is \\(2,\\), the model's {shape}".replace("(3,)", r"\(3,\)")):
            example_gradients(model, cross_entropy_loss, (x, t), chunk=5, direction={name: torch.zeros(2)})


def test_information_in_weights_of_a_logistic_regression_by_hand(linear, known):
    model, x, t = linear
    start = nn.Linear(4, 3).double()
    along = difference(model, start)
    n = 100
    projections = example_gradients(model, cross_entropy_loss, (x, t), chunk=4, direction=along).projections
    d = torch.cat([model.weight - start.weight, (model.bias - start.bias)[:, None]], 1).detach()
    padded = torch.cat([x, torch.ones(12, 1, dtype=torch.float64)], 1)
    expected = n * float((((model(x).softmax(1) - t) * (padded @ d.T)).sum(1) ** 2).mean().detach())
    known(lambda: float(information(projections, n)["total"].mean()), expected, 1e-9, nats=False)
    assert length(along) == pytest.approx(float(d.norm()))


def test_weights_of_another_architecture_are_named():
    with pytest.raises(ValueError, match=r"'weight' are \(3, 4\) here and \(3, 5\)"):
        difference(nn.Linear(4, 3), nn.Linear(5, 3))
    with pytest.raises(ValueError, match="'bias' are missing here"):
        difference(nn.Linear(4, 3, bias=False), nn.Linear(4, 3))


def test_eigenvalue_of_a_logistic_regression(linear, known):
    """Its Hessian is mean (diag s - s s^T) kron (x 1)(x 1)^T, whatever the targets."""
    model, x, t = linear
    padded = torch.cat([x, torch.ones(12, 1, dtype=torch.float64)], 1)
    s = model(x).detach().softmax(1)
    blocks = [torch.kron(torch.diag(p) - torch.outer(p, p), torch.outer(v, v)) for p, v in zip(s, padded, strict=True)]
    expected = float(torch.linalg.eigvalsh(torch.stack(blocks).mean(0))[-1])
    found = largest_eigenvalue(model, x, t, iterations=300, chunk=5, generator=stream(), tolerance=1e-9)
    assert found.converged
    known(lambda: found.value, expected, 1e-5 * expected, nats=False)
    assert found.contributions.shape == (12,)


def test_eigenvalue_of_a_network_against_its_whole_hessian():
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)).double().eval()
    x, t = torch.randn(10, 5, dtype=torch.float64), F.one_hot(torch.arange(10) % 3, 3).double()
    names = [name for name, _ in model.named_parameters()]
    sizes = [value.shape for value in model.parameters()]

    def loss(flat):
        parts = flat.split([size.numel() for size in sizes])
        weights = {name: part.view(size) for name, part, size in zip(names, parts, sizes, strict=True)}
        return soft_cross_entropy(torch.func.functional_call(model, weights, (x,)), t).mean()

    spectrum = torch.linalg.eigvalsh(
        torch.func.hessian(loss)(torch.cat([value.detach().flatten() for value in model.parameters()]))
    )
    expected = float(spectrum[-1])
    found = largest_eigenvalue(model, x, t, iterations=500, chunk=4, generator=stream(), tolerance=1e-10)
    assert found.value == pytest.approx(expected, rel=1e-4)


def test_a_weight_that_is_not_used_has_no_curvature():
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)).double().eval()
    x, t = torch.randn(10, 5, dtype=torch.float64), F.one_hot(torch.arange(10) % 3, 3).double()
    asked = {"iterations": 300, "chunk": 4, "tolerance": 1e-10}
    without = largest_eigenvalue(model, x, t, generator=stream(), **asked)
    model[0].spare = nn.Parameter(torch.ones(4, dtype=torch.float64))
    assert largest_eigenvalue(model, x, t, generator=stream(), **asked).value == pytest.approx(without.value, rel=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_the_positive_end_of_a_spectrum_with_equal_ends(seed):
    """Two linear layers near 0: H = [[0, B], [B^T, 0]] up to the small weights, so its ends are +-max sv(B)."""
    torch.manual_seed(4)
    model = nn.Sequential(nn.Linear(4, 6, bias=False), nn.Linear(6, 3, bias=False)).double().eval()
    with torch.no_grad():
        for value in model.parameters():
            value.mul_(1e-4)
    x, t = torch.randn(40, 4, dtype=torch.float64), F.one_hot(torch.arange(40) % 3, 3).double()
    # At logits 0 the loss falls along W by sum (1/3 - t) x^T / N, and B is that matrix, once per hidden unit.
    expected = float(torch.linalg.svdvals((1 / 3 - t).T @ x / 40)[0])
    found = largest_eigenvalue(model, x, t, iterations=30, chunk=40, generator=stream(seed))
    assert found.converged
    assert found.value == pytest.approx(expected, rel=1e-3)


def test_an_eigenvalue_stopped_early_says_so_and_is_too_small(linear):
    model, x, t = linear
    early, late = (largest_eigenvalue(model, x, t, iterations=k, chunk=5, generator=stream()) for k in (2, 30))
    assert (early.converged, late.converged) == (False, True)
    assert early.value < late.value
    assert early.residual > 1e-3 * early.value
    assert late.residual <= 1e-3 * late.value


def test_curvature_that_is_zero(linear):
    model, x, _ = linear
    zero = torch.zeros(12, 3, dtype=torch.float64)
    found = largest_eigenvalue(model, x, zero, iterations=5, chunk=5, generator=stream())
    assert (found.value, found.converged) == (0, True)


def test_the_walk_over_a_quadratic_bowl_leaves_the_model_alone():
    model = nn.Linear(4, 3, bias=False).double()
    before = model.weight.detach().clone()
    along = direction(model, stream())
    assert along["weight"].norm(dim=1) == pytest.approx(before.norm(dim=1), rel=1e-6)
    values = walk(model, along, [-1.0, 0.0, 2.0], lambda moved: moved.weight.square().sum().detach().numpy()[None])
    for radius, value in zip([-1.0, 0.0, 2.0], values, strict=True):
        assert value[0] == pytest.approx(float((before + radius * along["weight"]).square().sum()))
    assert torch.equal(model.weight, before)


def test_a_direction_does_not_move_biases_and_batch_norm(network):
    model, _, _ = network
    along = direction(model, stream())
    for name, value in model.named_parameters():
        if value.dim() < 2:
            assert not along[name].any()
        else:
            norms = [part.detach().flatten(1).norm(dim=1) for part in (along[name], value)]
            assert norms[0] == pytest.approx(norms[1], rel=1e-4)
