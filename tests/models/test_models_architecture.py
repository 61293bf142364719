"""Architectures: published sizes, features and head, normalisation, initial weights."""

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sglr import models
from sglr.config import ConfigError

SMALL = {
    "small_cnn": {"channels": [4, 6], "hidden": 10},
    "resnet18": {},
    "preact_resnet18": {},
    "wrn": {"depth": 10, "width": 1},
}


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("resnet18", {}, 11_173_962),
        ("resnet34", {}, 21_282_122),
        ("preact_resnet18", {}, 11_172_170),
        ("wrn", {"depth": 28, "width": 10}, 36_479_194),
        ("wrn", {}, 46_160_474),
        # 3x3x1x16 + 2x16 + 3x3x16x32 + 2x32 + 32x4x4x128 + 128 + 128x10 + 10 at 8x8x1
        ("small_cnn", {"shape": (1, 8, 8)}, 144 + 32 + 4608 + 64 + 65536 + 128 + 1280 + 10),
    ],
)
def test_parameter_counts_are_the_published_ones(name, options, count):
    with torch.device("meta"):
        model = models.build(name, num_classes=10, **{"shape": (3, 32, 32), **options})
    assert sum(parameter.numel() for parameter in model.parameters()) == count


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("shape", [(3, 12, 9), (1, 8, 8)])
def test_forward_is_head_of_features_at_any_image_size(name, shape):
    model = models.build(name, num_classes=7, shape=shape, **SMALL[name]).eval()
    x = torch.rand(2, *shape)
    with torch.no_grad():
        features, logits = model.features(x), model(x)
    assert isinstance(model.head, nn.Linear)
    assert features.shape == (2, model.head.in_features)
    assert logits.shape == (2, 7)
    assert torch.equal(logits, model.head(features))
    assert (features >= 0).all()  # every one of them ends in a ReLU


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "preact_resnet18", "wrn"])
def test_silu_takes_the_place_of_every_relu(name, monkeypatch):
    """As if torch's ReLU were SiLU; weights have the same names."""
    kind = {"num_classes": 3, "shape": (3, 8, 8), "generator_seed": 0, **SMALL.get(name, {})}
    smooth, plain = (models.build(name, **kind, activation=chosen).eval() for chosen in ("silu", "relu"))
    assert all(torch.equal(value, smooth.state_dict()[key]) for key, value in plain.state_dict().items())
    monkeypatch.setattr(F, "relu", F.silu)
    replaced = models.build(name, **kind).eval()
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(smooth(x), replaced(x))
        assert not torch.allclose(smooth(x), plain(x), atol=1e-3)


@pytest.mark.parametrize("name", SMALL)
def test_channels_last_changes_nothing_but_the_layout(name):
    model = models.build(name, num_classes=5, shape=(3, 16, 16), **SMALL[name]).eval()
    x = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        expected = model(x)
        found = model.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "name", [pytest.param(each, marks=pytest.mark.slow) if each == "wrn" else each for each in SMALL]
)
def test_models_are_one_graph_for_the_compiler(name):
    shape = (3, 8, 8)
    model = models.build(name, num_classes=5, shape=shape, normalization={"mean": [0.5] * 3, "std": [0.2] * 3}).eval()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    x = torch.rand(2, *shape)
    with torch.no_grad():
        assert torch.equal(compiled(x), model(x))


def reference_block(kind, block, x):
    """The blocks' published wiring, written out with functions."""

    def norm(layer, v):
        return F.batch_norm(v, layer.running_mean, layer.running_var, layer.weight, layer.bias)

    def conv(layer, v, stride=1, padding=1):
        return F.conv2d(v, layer.weight, stride=stride, padding=padding)

    if kind == "resnet18":
        out = norm(block.bn2, conv(block.conv2, F.relu(norm(block.bn1, conv(block.conv1, x, 2)))))
        return F.relu(out + norm(block.shortcut[1], conv(block.shortcut[0], x, 2, 0)))
    active = F.relu(norm(block.bn1, x))
    shortcut = block.shortcut if kind == "wrn" else block.shortcut[0]
    return conv(block.conv2, F.relu(norm(block.bn2, conv(block.conv1, active, 2)))) + conv(shortcut, active, 2, 0)


@pytest.mark.parametrize(("name", "stage"), [("resnet18", "layer2"), ("preact_resnet18", "layer2"), ("wrn", "block2")])
def test_blocks_that_change_shape_are_wired_as_published(name, stage):
    model = models.build(name, num_classes=3, shape=(3, 8, 8), generator_seed=0, **SMALL[name])
    model(torch.randn(8, 3, 8, 8))  # statistics that differ from the initial ones
    block = getattr(model.eval(), stage)[0]
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias)
    x = torch.randn(2, block.conv1.in_channels, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(block(x), reference_block(name, block, x))


def test_normalization_is_the_first_layer():
    options = {"channels": [4, 6], "hidden": 8, "batch_norm": False}
    given = {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.25, 2.0]}
    shape = (3, 8, 8)
    plain = models.build("small_cnn", num_classes=3, shape=shape, generator_seed=1, **options)
    normal = models.build("small_cnn", num_classes=3, shape=shape, generator_seed=1, normalization=given, **options)
    x = torch.rand(4, *shape)
    by_hand = torch.stack([(x[:, c] - given["mean"][c]) / given["std"][c] for c in range(3)], dim=1)
    torch.testing.assert_close(normal(x), plain(by_hand))
    assert isinstance(plain.normalize, nn.Identity)


@pytest.mark.parametrize("batch_norm", [True, False])
def test_batch_norm_is_an_option_of_the_small_network(batch_norm):
    model = models.build("small_cnn", num_classes=3, shape=(1, 8, 8), batch_norm=batch_norm)
    assert any(isinstance(module, nn.BatchNorm2d) for module in model.modules()) is batch_norm
    options = models.REGISTRY.options("small_cnn", batch_norm=batch_norm)
    assert options.has_batch_norm(3, (1, 8, 8)) is batch_norm
    assert (model.conv1.bias is None) is batch_norm


def test_initial_weights_come_from_the_seed_and_leave_the_global_state_alone(monkeypatch):
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("the GPUs' generators were seeded"))

    def weights(seed):
        return models.build("small_cnn", num_classes=3, shape=(1, 8, 8), generator_seed=seed).conv1.weight

    before = torch.get_rng_state()
    first, again, other = weights(0), weights(0), weights(1)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    torch.default_generator.manual_seed(0)
    assert torch.equal(models.build("small_cnn", num_classes=3, shape=(1, 8, 8)).conv1.weight, first)


def test_wide_resnet_starts_as_the_trades_code_does():
    model = models.build("wrn", num_classes=10, shape=(3, 8, 8), depth=10, width=4, generator_seed=0)
    weight = model.block3[0].conv2.weight  # 256 outputs of 3x3: standard deviation sqrt(2 / (9 * 256))
    assert weight.std().item() == pytest.approx((2 / (9 * 256)) ** 0.5, rel=0.01)
    assert not model.head.bias.any()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet81", {}, "Did you mean 'resnet18'"),
        ("resnet18", {"depth": 3}, "depth: unknown key"),
        ("wrn", {"depth": 30}, "6 n \\+ 4"),
        ("small_cnn", {"channels": [16]}, "channels"),
        ("small_cnn", {"channels": [16, 0]}, "channels"),
        ("small_cnn", {"hidden": "128"}, "hidden"),
        ("small_cnn", {"normalization": {"mean": [0.5], "std": [0.2]}}, "3 channels"),
        ("small_cnn", {"normalization": {"mean": [0.5] * 3, "std": [0.2]}}, "mean has 3 values, std 1"),
        ("small_cnn", {"normalization": {"mean": [0.5] * 3, "std": [0.2, 0.0, 0.2]}}, "std"),
        ("small_cnn", {"normalization": {"mean": [125.3] * 3, "std": [63.0] * 3}}, "a mean of 125.3: .* divide by 255"),
        ("small_cnn", {"num_classes": 1}, "num_classes"),
        ("small_cnn", {"shape": (32, 32)}, "shape"),
    ],
)
def test_options_that_do_not_fit_are_refused(name, options, message):
    with pytest.raises(ConfigError, match=message):
        models.build(name, **{"num_classes": 10, "shape": (3, 8, 8), **options})


class Whole(nn.Module):
    """Logits, and nothing of the form that the analysis looks into."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, classes))

    def forward(self, x):
        return self.layers(x)


class Parts(Whole):
    """Its head is there, and something else gives the logits."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.head = nn.Linear(64, classes)

    def features(self, x):
        return x.flatten(1)


class Composed(Parts):
    def forward(self, x):
        return self.head(self.features(x))


class Narrow(Composed):
    def features(self, x):
        return x.flatten(1)[:, :32]


class Stepwise(Whole):
    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.head = nn.Sequential(nn.Linear(64, classes))


class Random(Composed):
    """It draws in eval mode too; each of its parts has a mode of its own."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.drop = nn.Dropout().eval()

    def features(self, x):
        return nn.functional.dropout(x.flatten(1), 0.5)


class Own(Composed):
    """It draws from a generator of its own."""

    def features(self, x):
        return x.flatten(1) + torch.from_numpy(np.random.default_rng().random(64)).float()


class Permuted(Composed):
    """What is drawn when it is built is in no file."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.order = torch.randperm(64).tolist()

    def features(self, x):
        return x.flatten(1)[:, self.order]


class Projected(Permuted):
    """NumPy draws it."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.order = np.random.permutation(64).tolist()  # noqa: NPY002


class Besides(Composed):
    """What constant images do not show."""

    def forward(self, x):
        return super().forward(x) + (x - x.mean((2, 3), keepdim=True)).flatten(1)[:, :3]


class Scaled(Composed):
    """What a head of zeros does not show."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x):
        return 10 * super().forward(x)


class Cosine(nn.Linear):
    def forward(self, x):
        return nn.functional.linear(nn.functional.normalize(x), nn.functional.normalize(self.weight))


class Curved(Composed):
    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.head = Cosine(64, classes)


class Auxiliary(Composed):
    def forward(self, x):
        return (super().forward(x), x) if self.training else super().forward(x)


class Batched(Composed):
    """Its batch norm has no statistics of its own, and needs a batch in eval mode too."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.norm = nn.BatchNorm1d(64, track_running_stats=False)

    def features(self, x):
        return self.norm(x.flatten(1))


class Squeezed(Composed):
    """One image loses its first axis too."""

    def features(self, x):
        return x.flatten(2).squeeze()


class Moving(Composed):
    def features(self, x):
        return x.sub_(0.5).flatten(1)


class Lazy(Composed):
    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.first = nn.LazyLinear(4)


class Whitened(Composed):
    """Constant images have no variance that could be inverted."""

    def features(self, x):
        return (x / torch.linalg.cholesky(x.var((2, 3))[:, :, None])[..., None]).flatten(1)


class Scripted(Composed):
    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.rectify = torch.jit.script(nn.ReLU())

    def features(self, x):
        return self.rectify(x).flatten(1)


FORM = r"is not of the form head\(features\("


def building(kind, monkeypatch):
    options = type(models.REGISTRY.options("small_cnn"))
    monkeypatch.setattr(options, "build", lambda self, num_classes, shape: kind(3))


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Whole, FORM + r".*: its head is no torch\.nn\.Linear but None"),
        (Stepwise, FORM + r".*: its head is no torch\.nn\.Linear but Sequential\("),
        (type("Headed", (Whole,), {"head": nn.Linear(64, 3)}), FORM + r".*: it has no method features"),
        (Narrow, r"fails on images \(1, 8, 8\): "),
        (lambda _: Composed(4), r"gives \(2, 4\) for two images, not logits \(2, 3\)"),
        (Parts, FORM + r"x\)\): its logits are others"),
        (Besides, FORM + r"x\)\): its logits are others"),
        (Scaled, FORM + r"x\)\): its logits are others"),
        (Curved, FORM + r"x\)\): its logits are others"),
        (Permuted, "could not be saved and loaded again: two with equal weights give other logits"),
        (Projected, "could not be saved and loaded again: two with equal weights give other logits"),
        (Auxiliary, r"gives tuple for two images in train mode, not logits \(2, 3\)"),
        (Batched, r"fails on images \(1, 8, 8\) alone: Expected more than 1 value per channel"),
        (Squeezed, r"gives \(3,\) for one image alone, not logits \(1, 3\)"),
        (Moving, "changes the images it is given in place"),
        (Lazy, r"could not be saved .* first\.weight has no shape before its first forward"),
    ],
)
def test_a_network_of_another_form_is_refused_when_it_is_built(monkeypatch, kind, said):
    """Before it is trained, not when it is analysed."""
    building(kind, monkeypatch)
    with pytest.raises(ConfigError, match=rf"^model 'small_cnn' {said}"):
        models.build("small_cnn", num_classes=3, shape=(1, 8, 8))


@pytest.mark.parametrize("kind", [Random, Own, Whitened, Scripted])
@pytest.mark.filterwarnings("ignore:.*torch.jit.script. is deprecated")
def test_what_is_unusual_and_sound_is_built_and_left_as_it_is(monkeypatch, kind):
    building(kind, monkeypatch)
    torch.manual_seed(5)
    expected, drawn = kind(3), torch.rand(2)
    torch.manual_seed(5)
    before = np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    model = models.build("small_cnn", num_classes=3, shape=(1, 8, 8))
    assert torch.equal(torch.rand(2), drawn)
    assert (np.random.get_state()[1].tolist(), random.getstate()) == before  # noqa: NPY002
    assert torch.equal(model.head.weight, expected.head.weight)
    assert [module.training for module in model.modules()] == [module.training for module in expected.modules()]


class Initialised(Composed):
    """Its scale is that of the first images it sees."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.register_buffer("scale", torch.zeros(1))

    def features(self, x):
        if not self.scale.any():
            self.scale.fill_(x.std())
        return (x / self.scale).flatten(1)


def test_a_network_sees_no_image_when_it_is_built(monkeypatch):
    building(Initialised, monkeypatch)
    assert models.build("small_cnn", num_classes=3, shape=(1, 8, 8)).scale == 0


class ByHand(Composed):
    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.normalize = models.Normalize((0.5,), (0.2,))

    def features(self, x):
        return ((x - self.normalize.mean) / self.normalize.std).flatten(1)


def test_a_normalization_that_a_network_does_not_apply_is_refused(monkeypatch):
    asked = {"num_classes": 3, "shape": (1, 8, 8)}
    building(Composed, monkeypatch)
    models.build("small_cnn", **asked)
    with pytest.raises(ConfigError, match=r"does not call self\.normalize, so that model\.normalization has no effect"):
        models.build("small_cnn", **asked, normalization={"mean": [0.5], "std": [0.2]})
    building(ByHand, monkeypatch)
    models.build("small_cnn", **asked, normalization={"mean": [0.5], "std": [0.2]})
