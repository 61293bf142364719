"""The tests that need a GPU are tried on the CPU: elsewhere they are skipped, and would fall behind unseen."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="they run themselves where there is a GPU")
ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("chosen", "least"),
    [
        ("on_the_cpu and trades_sglr", 1),
        pytest.param("", 30, marks=[pytest.mark.slow, pytest.mark.timeout(1200)]),
    ],
)
def test_they_pass_on_the_cpu(chosen, least):
    call = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0", "tests/test_gpu.py"]
    done = subprocess.run(
        [*call, "-k", chosen], cwd=ROOT, env=os.environ | {"SGLR_TEST_GPU": "cpu"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed, done.stdout
    assert int(passed[1]) >= least
