"""What an evaluation refuses, what it flags, and what it must leave as it was."""

import numpy as np
import pytest
import torch
from evaluation_study import CPU, Output, make
from torch import nn

from sglr import evaluation, files, models
from sglr.attacks.accuracy import require_allowed
from sglr.config.errors import ModelError
from sglr.evaluation.model_checks import inspect, unchanged
from sglr.models.precision import full_precision
from sglr.threat import L2, Linf


@pytest.fixture
def study(params, tmp_path):
    return make(params, tmp_path)


def evaluate_with(study, monkeypatch, model):
    monkeypatch.setattr(models, "load_model", lambda path: model.eval())
    return evaluation.evaluate(*study, device=CPU)


@pytest.mark.parametrize(("threat", "length"), [(Linf(0.1), 0.1001), (L2(0.5), 0.5001)])
def test_a_perturbation_that_is_too_long_does_not_count(threat, length):
    x = torch.full((5, 1, 8, 8), 0.6)
    x_adv = x.clone()
    x_adv[3, 0, 0, 0] -= length
    with pytest.raises(RuntimeError, match=r"1 of 5 perturbations are longer than eps"):
        require_allowed(x_adv, x, threat)


@pytest.mark.parametrize("threat", [Linf(8 / 255), L2(128 / 255)])
def test_rounding_does_not_make_a_perturbation_too_long(threat):
    x = torch.rand(50, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    away = x + torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    require_allowed(threat.project(away, x), x, threat)


@pytest.mark.parametrize("value", [1.01, -0.01, float("nan")])
def test_points_outside_the_box_do_not_count(value):
    x = torch.full((2, 1, 8, 8), 0.5)
    with pytest.raises(RuntimeError, match=r"outside \[0, 1\] or NaN"):
        require_allowed(torch.full_like(x, value), x, None)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_no_numbers_name_the_checkpoint(study, monkeypatch, value):
    with pytest.raises(ModelError, match=r"train.best gives NaN or infinite logits for 40 of 40"):
        evaluate_with(study, monkeypatch, Output(lambda logits: logits * value))


def test_logits_that_break_under_attack_name_the_checkpoint(study, monkeypatch):
    """Points where the model gives no numbers are no broken predictions."""

    def broken(x):
        return torch.where(x.flatten(1)[:, :1] > 0.02, torch.nan, 1.0)

    model = Output()
    forward = model.forward
    model.forward = lambda x: forward(x) * broken(x)
    with pytest.raises(ModelError, match=r"train.best cannot be evaluated: the logits of \d+ of \d+ images"):
        evaluate_with(study, monkeypatch, model)


def test_a_wrong_number_of_classes_is_said(study, monkeypatch):
    with pytest.raises(ModelError, match=r"train.best gives \[7\] numbers per image, but the data has 10 classes"):
        evaluate_with(study, monkeypatch, Output(classes=7))


def test_probabilities_are_flagged(study, monkeypatch):
    flags = evaluate_with(study, monkeypatch, Output(lambda logits: logits.softmax(1))).flags
    assert any(flag.startswith("last: the outputs look like probabilities, not logits") for flag in flags)


def test_images_outside_the_unit_range_are_refused(tmp_path):
    model = Output().eval()
    inspect(model, torch.tensor([-5e-7, 1 + 5e-7]).repeat(32).view(1, 1, 8, 8), 10, 16, "the model")
    with pytest.raises(files.FileError, match=r"not in \[0, 1\] \(found 0 to 255\)"):
        inspect(model, torch.tensor([0.0, 255.0]).repeat(32).view(1, 1, 8, 8), 10, 16, "the model")


def test_predictions_that_depend_on_the_batch_are_flagged_with_their_number(tmp_path):
    x = torch.rand(300, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    normalised = Output(lambda logits: (logits - logits.mean(0)) / logits.std(0)).eval()
    by_hand = [torch.cat([normalised(part).argmax(1) for part in x[:256].split(size)]) for size in (100, 37)]
    (flag,) = inspect(normalised, x, 10, 100, "the model")
    assert flag.startswith(f"predictions of {int((by_hand[0] != by_hand[1]).sum())} of 256 images depend on the batch")
    assert inspect(Output().eval(), x, 10, 100, "the model") == []
    # Few images, and a batch size that is the other one compared with.
    for n, size in ((36, 500), (10, 500), (300, 37)):
        assert inspect(normalised, x[:n], 10, size, "the model")[0].startswith("predictions of "), (n, size)


def test_a_model_that_changes_while_evaluated_does_not_count(study, monkeypatch):
    class Counting(Output):
        def forward(self, x):
            self.seen += 1
            return super().forward(x)

    with pytest.raises(ModelError, match=r"evaluating .*best changed its weights or batch-norm statistics"):
        evaluate_with(study, monkeypatch, Counting())


def test_unchanged_sees_scalars_and_single_bits(tmp_path):
    model = nn.BatchNorm2d(2).eval()
    with unchanged(model, "the model"):
        model(torch.rand(2, 2, 3, 3))
    with pytest.raises(ModelError, match="changed"), unchanged(model, "the model"):
        model.num_batches_tracked += 1
    with pytest.raises(ModelError, match="changed"), unchanged(model, "the model"):
        model.weight.data[0] = float(np.nextafter(np.float32(1), np.float32(2)))


def test_full_precision_within_the_block_only():
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = torch.get_float32_matmul_precision(), cudnn.allow_tf32
    try:
        torch.set_float32_matmul_precision("medium")
        cudnn.allow_tf32 = True
        with full_precision():
            assert torch.get_float32_matmul_precision() == "highest"
            assert not matmul.allow_tf32
            assert not cudnn.allow_tf32
            assert not matmul.allow_bf16_reduced_precision_reduction
        assert torch.get_float32_matmul_precision() == "medium"
        assert cudnn.allow_tf32
    finally:
        torch.set_float32_matmul_precision(before[0])
        cudnn.allow_tf32 = before[1]


@pytest.mark.skipif(not hasattr(torch.backends, "fp32_precision"), reason="torch 2.9 has this interface")
def test_full_precision_whatever_the_newer_interface_was_set_to():
    backends = torch.backends
    places = (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn, backends.mkldnn.conv, backends)
    before = [place.fp32_precision for place in places]
    try:
        backends.fp32_precision = backends.cuda.matmul.fp32_precision = "tf32"
        backends.cudnn.rnn.fp32_precision = "ieee"
        with pytest.raises(RuntimeError, match="mix"):
            torch.get_float32_matmul_precision()
        with full_precision():
            assert {place.fp32_precision for place in places[:-1]} == {"ieee"}
            assert torch.get_float32_matmul_precision() == "highest"
            assert not backends.cudnn.allow_tf32
        assert [place.fp32_precision for place in places] == ["tf32", "tf32", "ieee", "tf32", "tf32"]
    finally:
        for place, value in zip(places, before, strict=True):
            place.fp32_precision = value
    assert [place.fp32_precision for place in places] == before
    assert torch.get_float32_matmul_precision() == "highest"
    assert backends.cudnn.allow_tf32


def test_the_worst_case_is_the_and_over_attacks_on_all_examples(params, tmp_path):
    attacks = {"fgsm": "fgsm", "cw": {"name": "pgd", "steps": 2, "loss": "cw"}, "few": {"name": "pgd", "n_examples": 8}}
    correct = evaluation.evaluate(*make(params, tmp_path, attacks=attacks), device=CPU).correct
    for found in correct.values():
        np.testing.assert_array_equal(found["worst"], found["fgsm"] & found["cw"])


def test_one_attack_has_no_worst_case(study):
    result = evaluation.evaluate(*study, device=CPU)
    assert "worst" not in result.metrics()["last"]
