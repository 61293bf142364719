"""Saved models: what comes back, and which files are refused."""

import json
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import sglr
from sglr import models
from sglr.config import ConfigError
from sglr.files import FileError

KIND = {"num_classes": 3, "shape": (1, 8, 8), "channels": [2, 4], "hidden": 6}
NORMALIZATION = {"mean": [0.4], "std": [0.3]}


@pytest.fixture
def model():
    built = models.build("small_cnn", **KIND, normalization=NORMALIZATION, generator_seed=0)
    built(torch.rand(16, 1, 8, 8))  # batch-norm statistics that are not the initial ones
    return built


@pytest.fixture
def folder(model, tmp_path):
    models.save(model, tmp_path / "best", models.spec("small_cnn", **KIND, normalization=NORMALIZATION))
    return tmp_path / "best"


def test_a_saved_model_comes_back_whole(model, folder):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    loaded = sglr.load_model(folder)
    x = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), before)
    assert not loaded.training
    assert torch.equal(loaded(x), model.eval()(x))
    assert torch.equal(models.load_model(folder / "model.safetensors")(x), model(x))
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    assert {path.name for path in folder.iterdir()} == {"model.safetensors", "model.json"}


def test_wrappers_leave_no_trace_in_the_file(model, folder, tmp_path):
    spec = models.spec("small_cnn", **KIND, normalization=NORMALIZATION)
    wrapped = torch.optim.swa_utils.AveragedModel(torch.nn.DataParallel(torch.compile(model, backend="eager")))
    models.save(wrapped, tmp_path / "wrapped", spec)
    models.save(model.to(memory_format=torch.channels_last), tmp_path / "layout", spec)
    expected = (folder / "model.safetensors").read_bytes()
    assert (tmp_path / "wrapped" / "model.safetensors").read_bytes() == expected
    assert (tmp_path / "layout" / "model.safetensors").read_bytes() == expected


def test_a_submodule_called_module_is_no_wrapper(model):
    class Inner(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.module = model

    own = Inner()
    assert models.unwrap(torch.nn.DataParallel(own)) is own


def test_weights_of_another_model_are_not_saved(model, tmp_path):
    with pytest.raises(ValueError, match=r"hidden\.weight"):
        models.save(model, tmp_path, models.spec("small_cnn", **{**KIND, "hidden": 7}, normalization=NORMALIZATION))
    assert not list(tmp_path.iterdir())


def edit_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")


def edit_spec(folder, **values):
    spec = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**spec, **values}))


def truncate(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-7])


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was executed",))


DAMAGE = {
    "no folder": (lambda f: [path.unlink() for path in f.iterdir()], "no model at"),
    "no json": (lambda f: (f / "model.json").unlink(), "model.json"),
    "json is not json": (lambda f: (f / "model.json").write_text("{"), "model.json"),
    "json is a list": (lambda f: (f / "model.json").write_text("[]"), "expected a mapping"),
    "a later format": (lambda f: edit_spec(f, format=2), "format 2"),
    "unknown architecture": (lambda f: edit_spec(f, name="resnet99"), "unknown model 'resnet99'"),
    "name is no text": (lambda f: edit_spec(f, name=["small_cnn"]), "name must be text"),
    "unknown option": (lambda f: edit_spec(f, options={"depth": 3}), "depth: unknown key"),
    "classes are text": (lambda f: edit_spec(f, num_classes="3"), "num_classes"),
    "another class count": (lambda f: edit_spec(f, num_classes=4), "head.weight is float32 \\[3, 6\\]"),
    "another architecture": (
        lambda f: edit_spec(f, name="resnet18", options={}),
        "missing: layer1.*unexpected: bn2.*of another form: conv1.weight",
    ),
    "a missing key": (lambda f: edit_weights(f, lambda w: w.pop("conv2.weight")), "missing: conv2.weight"),
    "a key too many": (lambda f: edit_weights(f, lambda w: w.update(x=torch.ones(1))), "unexpected: x"),
    "half precision": (lambda f: edit_weights(f, lambda w: w.update({"head.bias": torch.ones(3).half()})), "head.bias"),
    "truncated": (truncate, "damaged"),
    "empty": (lambda f: (f / "model.safetensors").write_bytes(b""), "damaged"),
    "a pickle": (lambda f: (f / "model.safetensors").write_bytes(pickle.dumps(Bomb())), "damaged"),
    "a huge header": (lambda f: (f / "model.safetensors").write_bytes((2**60).to_bytes(8, "little")), "damaged"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_files_that_do_not_fit_are_refused_by_name(folder, case):
    damage, message = DAMAGE[case]
    damage(folder)
    with pytest.raises(FileError, match=message) as caught:
        models.load_model(folder)
    assert str(folder) in str(caught.value)


def _unkept(model):
    model.register_buffer("scale", torch.full((2,), 2.0), persistent=False)


def _double(model):
    model.hidden.register_buffer("scale", torch.ones(2, dtype=torch.float64))


def _plain(model):
    model.hidden.scale = torch.full((2,), 2.0)


def _tied(model):
    model.head.again = model.head.weight


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_plain, "its tensor hidden.scale is neither a parameter nor a buffer"),
        (_unkept, "its buffer scale is not persistent"), (_double, "hidden.scale is float64"),
        (_tied, "head.again and head.weight share their memory"),
    ],
)  # fmt: skip
def test_a_network_that_would_not_come_back_is_refused_when_it_is_built(monkeypatch, change, message, device):
    """Before it is trained, not when its weights are written or read."""
    options = type(models.REGISTRY.options("small_cnn"))
    build = options.build

    def changed(self, num_classes, shape):
        model = build(self, num_classes, shape)
        change(model)
        return model

    spec = models.spec("small_cnn", **KIND)
    assert models.from_spec(spec, device) is not None
    monkeypatch.setattr(options, "build", changed)
    with pytest.raises(ConfigError, match=f"model 'small_cnn' could not be saved and loaded again: {message}"):
        models.from_spec(spec, device)


def test_a_file_of_another_kind_is_named(tmp_path):
    torch.save({}, tmp_path / "theirs.pt")
    with pytest.raises(FileError, match=r"theirs\.pt is no safetensors file: .* `sglr evaluate --model`"):
        models.load_model(tmp_path / "theirs.pt")


@pytest.mark.parametrize("read", [lambda rates: [rate.item() for rate in rates], lambda rates: rates.numpy().tolist()])
def test_a_network_that_reads_values_is_built_with_some(monkeypatch, tmp_path, read):
    """As stochastic depth does with a list of rates: the meta device has none."""
    options = type(models.REGISTRY.options("small_cnn"))
    build = options.build

    def reading(self, num_classes, shape):
        model = build(self, num_classes, shape)
        model.rates = read(torch.linspace(0, 0.1, 3))
        return model

    monkeypatch.setattr(options, "build", reading)
    spec = models.spec("small_cnn", **KIND)
    state = torch.get_rng_state()
    model = models.from_spec(spec, "meta")
    assert torch.equal(torch.get_rng_state(), state)
    assert model.rates == pytest.approx([0, 0.05, 0.1])
    models.save(model, tmp_path, spec)
    loaded = models.load_model(tmp_path)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in loaded.state_dict().items())
    assert options.model_validate({"name": "small_cnn"}).has_batch_norm(4, (1, 8, 8))


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")
def test_what_a_layer_makes_of_its_parameters_need_not_be_saved(monkeypatch):
    options = type(models.REGISTRY.options("small_cnn"))
    build = options.build

    def normed(self, num_classes, shape):
        model = build(self, num_classes, shape)
        nn.utils.weight_norm(model.hidden)
        return model

    monkeypatch.setattr(options, "build", normed)
    assert "hidden.weight_g" in models.build("small_cnn", **KIND).state_dict()
