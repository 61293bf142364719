"""The curve over the radius against direct calls and a closed form."""

import json

import numpy as np
import torch
from evaluation_study import CPU, Output, make

from sglr import evaluation, files
from sglr.attacks import REGISTRY
from sglr.evaluation.measurement import Measurement
from sglr.evaluation.result import radius_key
from sglr.evaluation.statistics import wilson
from sglr.threat import Linf


def test_the_curve_of_a_linear_model_is_the_closed_form():
    """Two classes: robust as long as the margin exceeds eps times the L1 norm of the weights' difference."""
    model = Output(classes=2).eval()
    x = 0.4 + 0.2 * torch.rand(200, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    logits = model(x).detach()
    y = logits.argmax(1)
    reach = (logits[:, 0] - logits[:, 1]).abs() / (model.weight[:, 0] - model.weight[:, 1]).abs().sum().detach()
    attack, smaller, found = REGISTRY.options("pgd", steps=10), None, {}
    for eps_255 in (1.0, 2.5, 4.0):
        smaller = Measurement(model, x, y, attack, Linf(eps_255 / 255), seed=0, chunk=70, before=smaller)
        found[eps_255] = smaller.whole().correct
        clear = ((reach - eps_255 / 255).abs() > 1e-5).numpy()
        np.testing.assert_array_equal(found[eps_255][clear], (reach > eps_255 / 255).numpy()[clear])
    assert 0 < found[2.5].sum() < 200


def test_the_sweep_reaches_the_files_and_survives_in_the_journal(params, tmp_path):
    study = make(params, tmp_path, sweep={"eps_255": [25.5, 5.0], "steps": 3})
    for _ in range(2):
        result = evaluation.evaluate(*study, device=CPU, pieces=tmp_path / "pieces")
        evaluation.write(result, tmp_path / "out")
        metrics = json.loads((tmp_path / "out/metrics.json").read_text())
        outcomes = files.read_arrays(tmp_path / "out/outcomes.npz")
        for name in ("best", "last"):
            assert list(metrics["sweep"][name]) == ["0", "5", "25.5"]
            assert metrics["sweep"][name]["0"] == metrics[name]["natural"]
            values = list(metrics["sweep"][name].values())
            assert values == sorted(values, reverse=True)
            for eps, value in metrics["sweep"][name].items():
                correct = outcomes[f"sweep/{name}/{eps}"]
                assert correct.mean() == value
                low, high = wilson(int(correct.sum()), len(correct))
                assert metrics["sweep"]["interval"][name][eps] == {"low": low, "high": high}
    assert (tmp_path / "pieces/last/sweep/25.5/000002-attack.npz").exists()


def test_radii_that_differ_have_keys_that_differ():
    radii = [0.0, 2.5, 2.5000001, 8 / 3, 8, 12.75, 0.1 + 0.2, 0.3]
    keys = [radius_key(eps_255) for eps_255 in radii]
    assert len(set(keys)) == len(radii)
    assert [float(key) for key in keys] == radii
    assert keys[:2] + keys[4:6] == ["0", "2.5", "8", "12.75"]


def test_signs_become_flags_of_the_checkpoint(params, tmp_path, monkeypatch):
    from sglr import models

    monkeypatch.setattr(models, "load_model", lambda path: Output(lambda logits: 0 * logits).eval())
    study = make(params, tmp_path, sanity={"n_examples": 20, "steps": 4})
    flags = evaluation.evaluate(*study, device=CPU).metrics()["flags"]
    assert any(flag.startswith("last: the loss has no gradient at all at 16 of 16") for flag in flags)
