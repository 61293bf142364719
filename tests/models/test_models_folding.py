"""The folded network against the model itself in eval mode: logits and gradients with respect to images."""

import random
import types

import numpy as np
import pytest
import torch
from torch import nn

from sglr import models
from sglr.models.folding import Folded

KIND = {"num_classes": 10, "shape": (3, 16, 16)}
# Batch norms that follow a convolution of their own; in pre-activation networks those at the start of a block do not.
FOLDS = {"small_cnn": 2, "resnet18": 20, "preact_resnet18": 8, "wrn": 6}


def trained(name: str, **options) -> nn.Module:
    """A model in float64 whose statistics, scales and shifts are not those it starts with."""
    model = models.build(name, **KIND, generator_seed=0, **options).double()
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for value in (module.weight.data, module.running_var, module.bias.data, module.running_mean):
                value.copy_(0.5 + torch.rand(value.shape, generator=generator))
    return model


def images(n: int = 4) -> torch.Tensor:
    return torch.rand(n, *KIND["shape"], generator=torch.Generator().manual_seed(2)).double()


def both(model: nn.Module, folded: Folded) -> None:
    x = [images().requires_grad_() for _ in range(2)]
    logits = [network(part) for network, part in zip((model.eval(), folded), x, strict=True)]
    torch.testing.assert_close(logits[1], logits[0], rtol=1e-9, atol=1e-9)
    weight = torch.rand(logits[0].shape, generator=torch.Generator().manual_seed(3)).double()
    gradients = [torch.autograd.grad((found * weight).sum(), part)[0] for found, part in zip(logits, x, strict=True)]
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("activation", ["relu", "silu"])
@pytest.mark.parametrize("name", FOLDS)
def test_it_is_the_model_in_eval_mode(name, activation):
    options = {"depth": 16, "width": 1} if name == "wrn" else {}
    if activation != "relu":
        if name == "small_cnn":
            pytest.skip("has no such option")
        options["activation"] = activation
    model = trained(name, **options).train()
    modes = [module.training for module in model.modules()]
    folded = Folded(model)
    assert [module.training for module in model.modules()] == modes
    assert folded.folds == FOLDS[name]
    both(model, folded)


def test_it_follows_the_model():
    model = trained("resnet18")
    folded = Folded(model)
    with torch.no_grad():
        for value in (*model.parameters(), *model.buffers()):
            if value.is_floating_point():
                value.mul_(1.25)
    folded.refresh()
    both(model, folded)


def test_nothing_of_it_is_trained_or_belongs_to_the_model():
    model = trained("small_cnn")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    folded = Folded(model)
    assert model.state_dict().keys() == before.keys()
    folded(images().requires_grad_()).sum().backward()
    assert model.conv1.weight.grad is None
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class Undecided(nn.Module):
    """What it does depends on the images: no tracing."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.bn(self.conv(x))
        return x.mean((2, 3)) if x.sum() > 0 else -x.mean((2, 3))


def test_a_model_that_cannot_be_traced_is_used_as_it_is():
    model = Undecided().double()
    folded = Folded(model)
    assert folded.folds == 0
    both(model, folded)


class ByHand(nn.Module):
    """Batch norm written by hand, as own models have it: something is computed from buffers alone."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("var", torch.ones(4))
        self.plain = torch.ones(1, dtype=torch.double)  # no buffer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        if self.training:
            with torch.no_grad():
                self.mean.lerp_(x.mean((0, 2, 3)), 0.1)
                self.var.lerp_(x.var((0, 2, 3)), 0.1)
        x = (x - self.mean[:, None, None]) * torch.rsqrt(self.var + 1e-5)[:, None, None]
        return torch.relu(x).mean((2, 3))


class Plain(ByHand):
    """It computes with a tensor of which torch knows nothing."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * (2 * self.plain)


def normed(layer: nn.Module) -> nn.Module:
    return nn.Sequential(layer, nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 14 * 14, 5))


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")
@pytest.mark.parametrize("make", [
    ByHand, Plain,
    lambda: normed(nn.utils.spectral_norm(nn.Conv2d(3, 4, 3))),
    lambda: normed(nn.utils.weight_norm(nn.Conv2d(3, 4, 3))),
    lambda: normed(nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 4, 3))),
    lambda: normed(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3))),
], ids=["statistics by hand", "plain tensor", "old spectral", "old weight", "spectral", "weight"])  # fmt: skip
def test_it_follows_unusual_models_through_training(make):
    torch.manual_seed(0)
    model = make().double()
    names = set(vars(model))
    with torch.no_grad():
        model(images())
    folded = Folded(model)
    assert set(vars(model)) == names
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(10):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images(8)), torch.arange(8) % 4).backward()
        optimizer.step()
    if hasattr(model, "plain"):
        model.plain += 1
    model.eval()
    folded.refresh()
    both(model, folded)


class Tied(nn.Module):
    """It computes with a convolution's weights in another place, too."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.head = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.bn(self.conv(x))
        return self.head(x.mean((2, 3)) + self.conv.bias + self.conv.weight.mean((1, 2, 3)))


class Standardised(nn.Conv2d):
    """Weight standardisation: another operation than its class's parent."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return self._conv_forward(x, weight, self.bias)


def with_its_own_forward() -> nn.Module:
    model = normed(nn.Conv2d(3, 4, 3))
    model.forward = types.MethodType(lambda self, x: 2 * nn.Sequential.forward(self, x), model)
    return model


def with_a_layers_own_forward(index: int) -> nn.Module:
    model = normed(nn.Conv2d(3, 4, 3))
    kind = type(model[index])
    model[index].forward = types.MethodType(lambda self, x: 2 * kind.forward(self, x), model[index])
    return model


class Shortcut(nn.Module):
    """The convolution that is called first is normalised last."""

    def __init__(self) -> None:
        super().__init__()
        self.short, self.one, self.two = (
            nn.Conv2d(3, 4, 1),
            nn.Conv2d(3, 4, 3, padding=1),
            nn.Conv2d(4, 4, 3, padding=1),
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        short = self.short(x)
        x = self.norms[1](self.two(self.norms[0](self.one(x)).relu()))
        return (x + self.norms[2](short)).mean((2, 3))


def test_the_convolution_of_another_type_comes_first():
    """``refresh`` copies all others at once, of which they must be of one type."""
    first, *rest = Folded(Shortcut().eval(), torch.bfloat16)._pairs
    assert first.folded.weight.dtype == torch.float32
    assert [pair.folded.weight.dtype for pair in rest] == [torch.bfloat16] * 2


@pytest.mark.parametrize("make", [
    Tied, with_its_own_forward, lambda: with_a_layers_own_forward(0), lambda: with_a_layers_own_forward(1),
    lambda: normed(nn.utils.parametrizations.weight_norm(Standardised(3, 4, 3))),
    lambda: normed(nn.utils.parametrizations.spectral_norm(Standardised(3, 4, 3))),
], ids=["tied weights", "a forward of its own", "a convolution's own", "a batch norm's own",
        "standardised weight", "standardised spectral"])  # fmt: skip
def test_what_computes_otherwise_is_not_folded(make):
    torch.manual_seed(0)
    model = make().double()
    for _ in range(3):
        model(images())
    folded = Folded(model.eval())
    assert folded.folds == 0
    both(model, folded)


class Shared(nn.Module):
    """A convolution whose output is used twice, and one that is applied twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.again = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.bn, self.bn2 = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.conv(x)
        z = self.bn(z) + z
        return self.bn2(self.again(self.again(z))).mean((2, 3))


def test_what_is_used_twice_is_not_folded():
    model = Shared().double()
    model.bn.running_mean += 0.5
    folded = Folded(model)
    assert folded.folds == 0
    both(model, folded)


def test_lower_precision_spares_the_first_convolution():
    model = trained("resnet18").float()
    kinds = [module.weight.dtype for module in Folded(model, torch.bfloat16).modules() if isinstance(module, nn.Conv2d)]
    assert kinds[0] == torch.float32
    assert set(kinds[1:]) == {torch.bfloat16}
    # Its first convolution has no batch norm after it: of the folded ones none sees images.
    folded = Folded(trained("preact_resnet18").float(), torch.bfloat16)
    assert {pair.folded.weight.dtype for pair in folded._pairs} == {torch.bfloat16}


@pytest.mark.parametrize(
    "draw",
    [
        lambda: int(torch.randint(0, 16, (1,))),
        lambda: np.random.randint(0, 16),  # noqa: NPY002
        lambda: random.randrange(16),
    ],
)
def test_what_is_drawn_in_each_forward_is_not_drawn_once_for_all(draw):
    class Shifted(nn.Module):
        def forward(self, x):
            return x.roll(draw(), 3).flatten(1)

    class Dropped(nn.Module):
        def forward(self, x):
            return nn.functional.dropout(x.flatten(1), 0.5)

    before = torch.get_rng_state(), np.random.get_state()[2], random.getstate()  # noqa: NPY002
    network = Folded(Shifted().eval())
    assert not network.traced
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[2], random.getstate()) == before[1:]  # noqa: NPY002
    assert len({tuple(network(images(1)).flatten().tolist()) for _ in range(40)}) > 5
    # What a graph draws itself it draws anew.
    network = Folded(Dropped().eval())
    assert network.traced
    assert not torch.equal(network(images(1)), network(images(1)))
