"""An evaluation through torch.compile against the plain one."""

import numpy as np
import pytest
import torch
from evaluation_study import CPU, make

from sglr import evaluation

ATTACKS = {
    "pgd3": {"name": "pgd", "steps": 3},
    "autoattack": {"name": "autoattack", "version": "plus", "n_examples": 20},
}


@pytest.mark.slow
def test_a_compiled_evaluation_finds_the_same(params, tmp_path):
    """Of forty digits of all sizes of batch no outcome differs, and the kept images are as near as rounding."""
    torch._dynamo.reset()
    params["threat"]["eps_255"] = 10.0
    study = make(params, tmp_path, attacks=ATTACKS)
    plain = evaluation.evaluate(*study, device=CPU)
    section = study[0].evaluate.model_copy(update={"compile": "always"})
    made = evaluation.evaluate(study[0].model_copy(update={"evaluate": section}), *study[1:], device=CPU)
    for name in ("best", "last"):
        for attack, correct in plain.correct[name].items():
            np.testing.assert_array_equal(made.correct[name][attack], correct, err_msg=f"{name} {attack}")
        np.testing.assert_allclose(made.worst[name].margin, plain.worst[name].margin, atol=1e-2)
    assert made.flags == plain.flags
