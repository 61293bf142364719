"""Evaluations on a device that is not the CPU (see ``accelerator``): every attack, the sweep, the sanity checks."""

import numpy as np
import pytest
from accelerator import DEVICE, accelerator
from evaluation_study import CPU, make

from sglr import evaluation

ATTACKS = {
    "fgsm": "fgsm",
    "pgd": {"name": "pgd", "steps": 3, "restarts": 2, "loss": "dlr"},
    "apgd": {"name": "apgd", "steps": 5, "restarts": 2},
    "square": {"name": "square", "queries": 10},
}
CHECKS = {"sweep": {"eps_255": [5, 20], "steps": 3}, "sanity": {"n_examples": 20, "steps": 5}}


@pytest.mark.parametrize(
    "suite",
    [
        {"attacks": ATTACKS},
        {"attacks": {"autoattack": {"name": "autoattack", "n_examples": 6}}},
        pytest.param(CHECKS, marks=pytest.mark.slow),
    ],
    ids=["attacks", "autoattack", "checks"],
)
def test_it_finds_there_what_it_finds_here(params, tmp_path, suite):
    params["threat"]["eps_255"] = 10.0
    study = make(params, tmp_path, **suite)
    expected = evaluation.evaluate(*study, device=CPU)
    with accelerator():
        found = evaluation.evaluate(*study, device=DEVICE)
    assert found.metrics() == expected.metrics()
    for name, outcome in expected.worst.items():
        np.testing.assert_array_equal(found.worst[name].images, outcome.images)
