"""``sglr.robustness``: any module through the whole suite, as the pipeline does with its own."""

import sys
import threading

import numpy as np
import pytest
import torch
from torch import nn

import sglr
from sglr import evaluation, models
from sglr.config import ConfigError
from sglr.config.errors import ModelError
from sglr.config.reader import validate
from sglr.data import Split

THREAT = sglr.threat.Linf(25.5 / 255)
QUICK = {
    "evaluate.attacks": {"fgsm": "fgsm", "pgd3": {"name": "pgd", "steps": 3}}, "evaluate.sanity": None,
    "threat.eps_255": 25.5,
}  # fmt: skip
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


class InPlace(Theirs):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.div_(2))


class Halved(Theirs):
    """It computes in its own type, whatever images come in."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.to(dtype)
        self.dtype = dtype

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.to(self.dtype))


class Uncopied(Theirs):
    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_model_that_converts_images_itself_is_attacked_in_its_own_type(dtype):
    model = Halved(dtype)
    found = sglr.robustness(model, X, Y, changes=QUICK)
    with torch.no_grad():
        right = model.eval()(torch.tensor(X).float() / 255).argmax(1).numpy() == Y
    assert found.accuracy("natural") == right.mean()


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, lambda: torch.autocast("cpu", torch.bfloat16)])
def test_the_mode_of_the_caller_makes_no_difference(mode):
    torch.manual_seed(0)
    model = Theirs()
    expected = sglr.robustness(model, X, Y, changes=QUICK)
    with mode():
        found = sglr.robustness(model, torch.tensor(X), torch.tensor(Y), changes=QUICK)
    for attack, correct in expected.correct["last"].items():
        assert np.array_equal(found.correct["last"][attack], correct), attack
    assert np.array_equal(found.worst["last"].margin, expected.worst["last"].margin)


@pytest.mark.parametrize("number", [np.float32, np.float64, torch.tensor])
def test_a_radius_may_be_of_any_kind_of_number(number):
    radius = {"evaluate.sanity": None, "evaluate.attacks": {}}
    for found in (
        sglr.robustness(Theirs(), X, Y, threat=sglr.threat.Linf(number(0.1)), changes=radius),
        sglr.robustness(Theirs(), X, Y, changes=radius | {"threat.eps_255": number(25.5)}),
    ):
        assert list(map(float, found.sweep["last"])) == pytest.approx([0, 6.375, 12.75, 25.5, 38.25, 51], rel=1e-6)


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


@pytest.mark.parametrize("attacks", ["fgsm", ["fgsm"], {"fgsm": "fgsm"}])
def test_the_suite_can_be_named(attacks):
    rest = {"evaluate.sweep": None, "evaluate.sanity": None}
    torch.manual_seed(0)
    model = Theirs()
    found = sglr.robustness(model, X, Y, threat=THREAT, attacks=attacks, n_examples=20, batch_size=7, changes=rest)
    changes = rest | {"evaluate.attacks": {"fgsm": "fgsm"}, "evaluate.n_examples": 20, "evaluate.batch_size": 7}
    assert found.metrics() == sglr.robustness(model, X, Y, threat=THREAT, changes=changes).metrics()
    assert found.correct["last"].keys() == {"natural", "fgsm"}
    assert found.accuracy("fgsm") == found.metrics()["last"]["fgsm"]
    low, high = found.interval("natural")
    assert 0 <= low <= found.accuracy("natural") <= high <= 1
    for asked in (found.accuracy, found.interval):
        with pytest.raises(KeyError, match="no attack 'pgd20' was evaluated, but natural, fgsm"):
            asked("pgd20")
        with pytest.raises(KeyError, match="no checkpoint 'best' was evaluated, but last"):
            asked("fgsm", "best")
    with pytest.raises(ConfigError, match=r"evaluate\.n_examples is given twice, as n_examples= and among the changes"):
        sglr.robustness(model, X, Y, threat=THREAT, n_examples=20, changes={"evaluate.n_examples": 10})


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
    first = sglr.robustness(model, X, Y, changes=QUICK, snapshots=tmp_path)
    monkeypatch.setattr(sys.modules["sglr.attacks.pgd"], "ascend", None)  # nothing is attacked again
    assert sglr.robustness(model, X, Y, changes=QUICK, snapshots=tmp_path).metrics() == first.metrics()
    for others in ({"model": Theirs()}, {"x": 255 - X}, {"changes": QUICK | {"threat.eps_255": 2}}):
        with pytest.raises(TypeError, match="not callable"):  # what was found for one is not taken for another
            sglr.robustness(**{"model": model, "x": X, "y": Y, "changes": QUICK, "snapshots": tmp_path} | others)


class Shifted(Theirs):
    """What it computes with is not all in its state."""

    def __init__(self, mean: float) -> None:
        super().__init__()
        self.mean = [torch.tensor(mean)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x - self.mean[0])


def test_snapshots_know_models_apart_by_all_they_hold(tmp_path):
    models = [Shifted(0.4), Shifted(0.0)]
    models[1].load_state_dict(models[0].state_dict())
    asked = {"x": X, "y": Y, "changes": QUICK, "snapshots": tmp_path}
    found = [sglr.robustness(model, **asked).metrics() for model in models]
    assert len(list(tmp_path.iterdir())) == 2
    again = sglr.robustness(models[1], X, Y, changes=QUICK)
    assert found[1] == again.metrics()


def test_snapshots_refuse_a_model_that_they_cannot_tell_from_others(tmp_path):
    model = Theirs()
    model.held = threading.Lock()
    with pytest.raises(ValueError, match="the model cannot be copied"):
        sglr.robustness(model, X, Y, changes=QUICK, snapshots=tmp_path)
    Theirs.__deepcopy__ = lambda self, memo: self
    try:
        with pytest.raises(ValueError, match=r"it holds a _thread\.lock: leave the snapshots out"):
            sglr.robustness(model, X, Y, changes=QUICK, snapshots=tmp_path)
    finally:
        del Theirs.__deepcopy__


def test_a_function_is_no_model():
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, found function"):
        sglr.robustness(lambda x: x, X, Y, changes=QUICK)


class Randomised(Theirs):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x + 0.1 * torch.randn_like(x))


@pytest.mark.slow
def test_a_randomised_model_is_measured_alike_each_time(tmp_path):
    """Whatever was drawn before, and where the middle of an evaluation was already done."""
    model = Randomised()
    y = model.eval()(torch.from_numpy(X) / 255).argmax(1)
    changes = {"evaluate.attacks": {"rand": {"name": "autoattack", "version": "rand"}}, "evaluate.sanity.n_examples": 8}
    found = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        found.append(sglr.robustness(model, X, y, threat=THREAT, changes=changes, snapshots=tmp_path))
        assert torch.equal(torch.get_rng_state(), before)
        for piece in tmp_path.rglob("*apgd-dlr*.npz"):
            piece.unlink()
    assert found[0].flags == found[1].flags
    assert np.array_equal(found[0].correct["last"]["rand"], found[1].correct["last"]["rand"])


class Half(Theirs):
    """As under autocast."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).bfloat16()


class Double(Theirs):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).double()


def test_logits_may_be_of_any_type():
    attacks = {"pgd": {"name": "pgd", "steps": 2, "restarts": 2}, "apgd": {"name": "apgd", "steps": 2}}
    changes = {"evaluate.attacks": attacks, "evaluate.sanity": None}
    models = [Theirs(), Double(), Half()]
    for model in models:
        model.load_state_dict(models[0].state_dict())
    plain, double, half = (sglr.robustness(model, X, Y, threat=THREAT, changes=changes).metrics() for model in models)
    assert plain == double
    assert half["last"].keys() == plain["last"].keys()


def test_images_may_be_of_any_form():
    colour = np.random.default_rng(1).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    model = models.build("small_cnn", num_classes=10, shape=(3, 8, 8), generator_seed=0)
    x = torch.from_numpy(colour).permute(0, 3, 1, 2).contiguous() / 255
    y, asked = model.eval()(x).argmax(1), {"square": {"name": "square", "queries": 20}}
    changes = {"evaluate.attacks": asked, "evaluate.sanity": None, "threat.norm": "l2", "threat.eps_255": 60}
    first, *others = [
        sglr.robustness(model, images, y, changes=changes).metrics()
        for images in (x, colour, x.permute(0, 2, 3, 1).numpy(), x.clone(memory_format=torch.channels_last))
    ]
    assert all(other == first for other in others)
    halves = sglr.robustness(model, x.bfloat16(), y, changes=QUICK).metrics()
    assert halves["last"]["natural"] > 0.5


def test_suites_can_be_used_again():
    suite = {"evaluate.attacks": {"pgd3": {"name": "pgd", "steps": 3}}, "evaluate.attacks.pgd3.steps": 1}
    sglr.robustness(Theirs(), X, Y, threat=THREAT, changes=suite | {"evaluate.sanity": None})
    assert suite["evaluate.attacks"]["pgd3"]["steps"] == 3


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"threat": None}, ConfigError, "^sglr.robustness: give the threat model"),
        ({"changes": {"train.epochs": 3}}, ConfigError, "train.epochs would have no effect: sglr.robustness"),
        ({"threat": None, "changes": {"threat.eps": 3}}, ConfigError, "threat.eps: unknown key"),
        ({"device": "cuda:99"}, ConfigError, "device='cuda:99' requests a GPU"),
        ({"params": "nowhere.yaml"}, ConfigError, "cannot read nowhere.yaml"),
        ({"x": X / 25}, ValueError, r"x has values from 0 to 10\.2"),
        ({"y": Y[:7]}, ValueError, r"30 images \(x\), 7 labels \(y\)"),
        ({"model": nn.Flatten(0)}, ModelError, r"no logits \(n, classes\), but a tensor of shape \(128,\)"),
        ({"model": Pair()}, ModelError, r"no logits \(n, classes\), but tuple"),
        ({"y": Y + 1}, ValueError, "there is a label 10, but the model gives 10 logits"),
        ({"model": InPlace()}, ModelError, "the model changes the images it is given in place"),
        ({"model": Uncopied()}, ValueError, r"the model cannot be copied \(copy\.deepcopy\): cannot pickle"),
        (
            {"x": np.zeros((30, 8, 8, 4))},
            ValueError,
            r"x has shape \(30, 8, 8, 4\): 4 channels must be the second axis",
        ),
    ],
)
def test_what_cannot_be_used_is_refused(change, error, message):
    with pytest.raises(error, match=message):
        sglr.robustness(**{"model": Theirs(), "x": X, "y": Y, "threat": THREAT} | change)


def test_a_threat_model_takes_the_sweep_along():
    """Radii of the shipped sweep in proportion to its own radius; a radius in the wrong unit is a warning."""
    changes = {"evaluate.attacks": {"fgsm": "fgsm"}, "evaluate.sanity": None}
    threat = sglr.threat.Linf(8 / 255)
    found = sglr.robustness(Theirs(), X, Y, threat=threat, changes=changes | {"evaluate.sweep.steps": 2})
    assert sorted(found.metrics()["sweep"]["last"]) == ["0", "12", "16", "2", "4", "8"]
    changes |= {"evaluate.sweep": None, "threat.eps_255": 8 / 255}
    with pytest.warns(UserWarning, match=r"threat\.eps_255 0\.03.* radii are given in 255ths") as said:
        sglr.robustness(Theirs(), X, Y, changes=changes)
    assert [warning.filename for warning in said] == [__file__]
    with pytest.warns(UserWarning, match=r"radii in 255ths are given as Linf\(8 / 255\)") as said:
        sglr.robustness(Theirs(), X, Y, threat=sglr.threat.Linf(8), changes={"evaluate.attacks": {"fgsm": "fgsm"}})
    assert [warning.filename for warning in said] == [__file__]
