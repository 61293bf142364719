"""The suite: the file contract, outcomes against direct calls, AutoAttack's warnings as flags, eval mode."""

import json
import shutil

import numpy as np
import pytest
import torch
from evaluation_study import CPU, make
from torch import nn

from sglr import evaluation, files, models
from sglr.attacks import autoattack
from sglr.config.errors import ModelError
from sglr.data import Split
from sglr.evaluation import suite
from sglr.threat import Linf, build

EPS = 25.5 / 255


@pytest.fixture
def study(params, tmp_path):
    return make(params, tmp_path)


def run(study):
    return evaluation.evaluate(*study, device=torch.device("cpu"))


def test_metrics_and_outcomes_follow_the_contract(study, tmp_path):
    result = run(study)
    evaluation.write(result, tmp_path / "out")
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    outcomes = files.read_arrays(tmp_path / "out" / "outcomes.npz")
    assert list(metrics) == ["best", "last", "gap", "interval", "n_examples", "flags"]
    assert metrics["n_examples"] == {"natural": 40, "fgsm": 40, "pgd3": 24}
    for name in ("best", "last"):
        for attack, n in metrics["n_examples"].items():
            outcome = outcomes[f"{name}/{attack}"]
            assert outcome.dtype == bool
            assert len(outcome) == n
            assert metrics[name][attack] == outcome.mean()
            low, high = evaluation.wilson(int(outcome.sum()), n)
            assert metrics["interval"][name][attack] == {"low": low, "high": high}
            np.testing.assert_array_equal(outcomes[f"index/{attack}"], np.arange(n))
    for attack in metrics["gap"]:
        assert metrics["gap"][attack] == metrics["best"][attack] - metrics["last"][attack]
    # These networks are untrained.
    assert [flag.partition(",")[0] for flag in metrics["flags"]] == ["best: natural accuracy", "last: natural accuracy"]


def test_an_attacked_example_counts_only_if_it_was_correct_before(study):
    correct = run(study).correct
    for outcomes in correct.values():
        for attack in ("fgsm", "pgd3"):
            assert not (outcomes[attack] & ~outcomes["natural"][: len(outcomes[attack])]).any()


def test_two_evaluations_are_equal(study, tmp_path):
    for name in ("a", "b"):
        evaluation.write(run(study), tmp_path / name)
    for file in ("metrics.json", "outcomes.npz"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_without_a_best_model_there_is_only_the_last(study):
    for file in (study[2] / "best").iterdir():
        file.unlink()
    metrics = run(study).metrics()
    assert "best" not in metrics
    assert "gap" not in metrics


def test_a_missing_model_is_named(study):
    (study[2] / "last" / "model.safetensors").unlink()
    with pytest.raises(files.FileError, match=r"last.model\.safetensors"):
        run(study)


def test_a_training_that_is_not_there_is_named(study):
    shutil.rmtree(study[2] / "best")
    with pytest.raises(files.FileError, match="best is not there: the training has to run first"):
        run(study)


class Toy(nn.Module):
    """Ten-class linear model on 4x4 images; ``noise`` makes it a randomised defence."""

    def __init__(self, noise: float = 0.0, scale: float = 1.0, classes: int = 10) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(scale * torch.randn(16, classes, generator=generator))
        self.noise = noise

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = (x - 0.5).flatten(1) @ self.weight
        return logits + self.noise * torch.randn_like(logits)


def images(n: int = 12) -> torch.Tensor:
    return torch.rand(n, 1, 4, 4, generator=torch.Generator().manual_seed(1))


@pytest.mark.usefixtures("short")
def test_autoattack_equals_pyautoattack_called_directly():
    from pyautoattack import AutoAttack

    model, x = Toy().eval(), images(4)
    y = model(x).argmax(1)
    found = autoattack(model, x, y, threat=Linf(0.03), seed=5, batch_size=4)
    runner = AutoAttack(model, norm="Linf", eps=0.03, version="standard", seed=5)
    expected, _ = runner.run_standard_evaluation(x, y, batch_size=4)
    assert torch.equal(found, expected)
    assert (model(found).argmax(1) != y).any()


def test_autoattack_finds_what_the_closed_form_says():
    """A linear model is robust at an example iff every pairwise margin exceeds eps * ||w_y - w_j||_1 (box inactive)."""
    model = Toy().eval()
    x = 0.4 + 0.2 * images(6)
    y = model(x).argmax(1)
    eps = 0.005
    weight = model.weight.detach().T
    margins = model(x).detach().gather(1, y[:, None]) - model(x).detach()
    reach = eps * (weight[y][:, None] - weight[None]).abs().sum(2)
    robust = ((margins > reach) | torch.nn.functional.one_hot(y, 10).bool()).all(1)
    found = model(autoattack(model, x, y, threat=build("linf", eps), seed=0)).argmax(1) == y
    assert torch.equal(found, robust)
    assert 0 < robust.sum() < 6


def test_too_few_classes_for_autoattack_are_refused_and_few_are_said(caplog):
    x = images(4)
    with pytest.raises(ValueError, match="at least 4 classes"):
        autoattack(Toy(classes=3).eval(), x, torch.zeros(4, dtype=torch.long), threat=Linf(0.1), seed=0)
    model = Toy(classes=5).eval()
    autoattack(model, x, model(x).argmax(1), threat=Linf(0.01), seed=0)
    assert "4 targets instead of 9: not AutoAttack's standard version" in caplog.text


@pytest.mark.usefixtures("short")
def test_what_autoattack_warns_of_becomes_a_flag(study, params, monkeypatch):
    """A model whose logits are noisy is a randomised defence: AutoAttack says so, and so do the metrics."""
    monkeypatch.setattr(models, "load_model", lambda path: nn.Sequential(nn.Flatten(), Noisy()).eval())
    config = study[0].model_copy(
        update={"evaluate": study[0].evaluate.model_copy(update={"attacks": suite_of_autoattack()})}
    )
    flags = evaluation.evaluate(config, *study[1:], device=torch.device("cpu")).metrics()["flags"]
    assert any(flag.startswith("last/autoattack: it seems to be a randomized defense") for flag in flags)


class Noisy(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :10] + 0.1 * torch.randn(len(x), 10)


def suite_of_autoattack():
    from sglr.attacks import REGISTRY

    return {"autoattack": REGISTRY.options("autoattack", n_examples=2)}


def test_a_model_in_train_mode_is_not_evaluated(study, monkeypatch):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Dropout(0.5)).eval()
    model[2].train()
    monkeypatch.setattr(models, "load_model", lambda path: model)
    with pytest.raises(ModelError, match=r"the model at .* cannot be evaluated: part of it is in train mode\."):
        run(study)


def test_an_empty_test_split_is_an_error(params, tmp_path, monkeypatch):
    config, prepared, trained = make(params, tmp_path, attacks={})
    test = prepared.test()
    monkeypatch.setattr(type(prepared), "test", lambda *_: Split(test.x[:0], test.given[:0], test.true[:0]))
    with pytest.raises(files.FileError, match="the test split is empty"):
        evaluation.evaluate(config, prepared, trained, device=CPU)


def test_of_many_examples_the_first_are_kept(params, tmp_path, monkeypatch):
    monkeypatch.setattr(suite, "KEPT", 8)
    config, prepared, trained = make(params, tmp_path, attacks={"pgd": {"name": "pgd", "steps": 2}})
    found = evaluation.evaluate(config, prepared, trained, device=CPU)
    assert len(found.correct["last"]["pgd"]) > 8
    assert len(found.worst["last"].images) == len(found.worst["last"].correct) == 8


def test_pieces_of_the_checks_are_not_those_of_attacks_of_the_same_name(params, tmp_path):
    asked = {"attacks": {"fgsm": {"name": "pgd", "steps": 3}}, "sanity": {"n_examples": 40, "steps": 4}}
    evaluation.evaluate(*make(params, tmp_path, **asked), device=CPU, pieces=tmp_path / "pieces")
    for name in ("natural", "fgsm"):
        assert list((tmp_path / "pieces/last" / name).glob("*.npz"))
        assert list((tmp_path / "pieces/last/sanity" / name).glob("*.npz"))


def test_the_first_time_nothing_is_resumed(params, tmp_path):
    made, said = make(params, tmp_path, attacks={}), []
    for _ in range(2):
        evaluation.evaluate(*made, device=CPU, pieces=tmp_path / "pieces", on_resume=said.append)
    assert said == [6], "natural accuracy of two models in three chunks"
