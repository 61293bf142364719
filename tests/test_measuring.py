"""``sglr.robustness``: any module through the whole suite, as the pipeline does with its own."""

import sys

import numpy as np
import pytest
import torch
from torch import nn

import sglr
from sglr import evaluation, models
from sglr.config import ConfigError
from sglr.config.reader import validate
from sglr.data import Split
from sglr.files import FileError

QUICK = {"evaluate.attacks": {"fgsm": "fgsm", "pgd3": {"name": "pgd", "steps": 3}}, "evaluate.sanity": None}
X = np.random.default_rng(0).integers(0, 256, (30, 1, 8, 8), dtype=np.uint8)
Y = np.arange(30) % 10


class Theirs(nn.Module):
    """A network that knows nothing of this project, in train mode, with a normalisation of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers((x - 0.5) / 0.25)


class Pair(Theirs):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return super().forward(x), x


def test_it_is_what_the_pipeline_finds(params, tmp_path):
    kind = {"num_classes": 10, "shape": (1, 8, 8)}
    params["evaluate"] |= {"attacks": QUICK["evaluate.attacks"], "sanity": None}
    config = validate(params)
    model = models.build(config.model, **kind, generator_seed=0).eval()
    models.save(model, tmp_path / "last", models.spec(config.model, **kind))
    (tmp_path / "best").mkdir()

    class Data:
        num_classes, shape = 10, (1, 8, 8)

        def test(self, device="cpu"):
            return Split(torch.from_numpy(X), torch.from_numpy(Y), torch.from_numpy(Y))

    expected = evaluation.evaluate(config, Data(), tmp_path, device=torch.device("cpu"))
    found = sglr.robustness(model, X, Y, changes=QUICK)
    assert found.metrics() == expected.metrics()
    assert all(np.array_equal(found.correct["last"][name], of) for name, of in expected.correct["last"].items())


def test_any_module_is_left_as_it_was():
    torch.manual_seed(0)
    model = Theirs()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = sglr.robustness(model, torch.from_numpy(X).float() / 255, torch.from_numpy(Y), changes=QUICK)
    assert list(found.metrics()["last"]) == ["natural", "fgsm", "pgd3", "worst"]
    assert len(found.correct["last"]["pgd3"]) == 30
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


def test_doubts_are_flags():
    flags = sglr.robustness(nn.Sequential(Theirs(), nn.Softmax(1)), X, Y, changes=QUICK).flags
    assert any(flag.startswith("last: the outputs look like probabilities, not logits") for flag in flags)


def test_an_interrupted_run_goes_on(tmp_path, monkeypatch):
    model = Theirs()
    first = sglr.robustness(model, X, Y, changes=QUICK, journal=tmp_path)
    monkeypatch.setattr(sys.modules["sglr.attacks.pgd"], "ascend", None)  # nothing is attacked again
    assert sglr.robustness(model, X, Y, changes=QUICK, journal=tmp_path).metrics() == first.metrics()
    for others in ({"model": Theirs()}, {"x": 255 - X}, {"changes": QUICK | {"threat.eps_255": 2}}):
        with pytest.raises(TypeError, match="not callable"):  # what was found for one is not taken for another
            sglr.robustness(**{"model": model, "x": X, "y": Y, "changes": QUICK, "journal": tmp_path} | others)


def test_suites_can_be_used_again():
    suite = {"evaluate.attacks": {"pgd3": {"name": "pgd", "steps": 3}}, "evaluate.attacks.pgd3.steps": 1}
    sglr.robustness(Theirs(), X, Y, changes=suite | {"evaluate.sanity": None})
    assert suite["evaluate.attacks"]["pgd3"]["steps"] == 3


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"changes": {"train.epochs": 3}}, ConfigError, "train.epochs would have no effect: sglr.robustness"),
        ({"changes": {"threat.eps": 3}}, ConfigError, "threat.eps: unknown key"),
        ({"device": "cuda:99"}, ConfigError, "device='cuda:99' asks for a GPU"),
        ({"params": "nowhere.yaml"}, ConfigError, "cannot read nowhere.yaml"),
        ({"x": X / 25}, ValueError, r"x has values from 0 to 10\.2"),
        ({"y": Y[:7]}, ValueError, r"30 pictures \(x\), 7 labels \(y\)"),
        ({"model": nn.Flatten(0)}, FileError, r"no logits \(n, classes\), but a tensor of shape \(64,\)"),
        ({"model": Pair()}, FileError, r"no logits \(n, classes\), but tuple"),
        ({"y": Y + 1}, ValueError, "there is a label 10, but the model gives 10 logits"),
    ],
)
def test_what_cannot_be_used_is_refused(change, error, message):
    with pytest.raises(error, match=message):
        sglr.robustness(**{"model": Theirs(), "x": X, "y": Y} | change)
