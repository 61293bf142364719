"""The benchmarks find their parity and print their tables; what they measure is not looked at."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow
FOLDER = Path(__file__).parents[1] / "benchmarks"


def rows(*call: str) -> list[list[str]]:
    """The cells of all rows of all tables that a benchmark prints."""
    done = subprocess.run([sys.executable, *call], cwd=FOLDER, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")]
    return [cells for cells in lines if cells[0] != "what"]


def test_what_other_packages_find_is_found():
    """Those that are installed here: SciPy at least."""
    found = {
        (what, package): float(difference) for what, package, difference, _ in rows("others.py") if difference != "–"
    }
    assert any("scipy" in package for _, package in found)


@pytest.mark.parametrize("part", ["processes", "augmentation", "forms", "attack", "analysis", "evaluation"])
def test_a_part_compares_with_a_plain_form(part):
    found = rows("bench.py", part, "--rounds", "1", "--device", "cpu")
    assert found
    for what, against, *numbers in found:
        assert what
        assert against
        # Seconds of both, and their ratio.
        plain, ours, ratio = map(float, numbers[:3])
        assert ratio == pytest.approx(plain / ours, rel=0.02)


def test_the_step_is_compared_with_both_forms_of_the_reference():
    found = rows("step.py", "--rounds", "1", "--steps", "1", "--device", "cpu")
    names = {(cells[0], cells[1]) for cells in found}
    kinds = [f"{method}, {precision}" for method in ("at", "sglr") for precision in ("fp32", "bf16")]
    expected = {(kind, f'plain, "{form}"') for kind in kinds for form in ("grad", "backward")}
    expected |= {(kind, "ours, at") for kind in kinds if kind.startswith("sglr")}
    measured = {f"measured after an epoch, weights of {precision}" for precision in ("fp32", "bf16")}
    assert names == expected | {(name, "ours, at: its steps") for name in measured}
    # Peak memory is a GPU's: not measured here, and not guessed.
    assert {cells[-1] for cells in found} == {"–"}


def test_throughput_is_of_every_form_that_is_asked_for():
    call = ["throughput.py", "--model", "small_cnn", "--batches", "20,40", "--precisions", "bf16,fp32"]
    call += ["--seconds", "0.05"]
    found = rows(*call, "--compile", "never", "--device", "cpu")
    # By how much each differs from the first.
    forms = [
        ("sglr", "bf16", 20), ("sglr", "bf16", 40), ("sglr", "fp32", 20), ("at", "bf16", 20),
        ("sglr", "fp32", 40), ("at", "bf16", 40), ("at", "fp32", 20), ("at", "fp32", 40),
    ]  # fmt: skip
    assert [cells[0] for cells in found] == [
        f"{method}, {precision}, batch {batch}" for method, precision, batch in forms
    ]
    for (_, _, batch), (_, _, _, taken, _, _, rate, *_) in zip(forms, found, strict=True):
        assert float(rate.replace(",", "")) == pytest.approx(batch / float(taken), rel=0.05)


def test_autoattack_is_timed_on_images_that_it_never_breaks():
    call = [sys.executable, "bench.py", "autoattack", "--device", "cpu"]
    done = subprocess.run(call, cwd=FOLDER, capture_output=True, text=True, check=True, timeout=500)
    assert re.search(r"8 images that stay correct: [\d.]+ s an image \(7800 forward and 1900 backward", done.stdout)


def test_short_trainings_are_timed_and_attacked(tmp_path):
    """On a file whose test images come sorted by class, channels last, in floating point."""
    random = np.random.default_rng(0)
    y, test = np.arange(1040) % 4, np.arange(40) // 10
    x, x_test = (labels[:, None, None, None] / 4 + random.random((len(labels), 8, 8, 3)) / 8 for labels in (y, test))
    np.savez(tmp_path / "own.npz", x_train=x, y_train=y, x_test=x_test, y_test=test)
    call = ["training.py", str(tmp_path / "own.npz"), "--model", "small_cnn", "--epochs", "2", "--batch", "20"]
    found = rows(*call, "--device", "cpu", "--cases", "at,fp32,never", "sglr,bf16,never")
    assert [cells[0] for cells in found] == ["method, precision, compile", "at, fp32, never", "sglr, bf16, never"]
    for _, first, epoch, rate, *_ in found[1:]:
        assert float(first) >= 0
        assert float(rate.replace(",", "")) == pytest.approx(40 / float(epoch), rel=0.2)


def test_what_does_not_fit_into_the_minutes_is_cut_off_and_said(tmp_path):
    call = [sys.executable, "gpu.py", str(tmp_path), "--device", "cpu", "--tasks", "forms", "step", "others"]
    done = subprocess.run(
        [*call, "--minutes", "0.8"], cwd=FOLDER, capture_output=True, text=True, check=True, timeout=500
    )
    ends = dict(line.split(": ", 1) for line in (tmp_path / "summary.txt").read_text().splitlines())
    assert list(ends) == ["forms", "step", "others"]
    assert ends["forms"].startswith("ended with 0")
    assert ends["step"].startswith("cut off")
    assert ends["others"] == "not begun, the time was up"
    assert "Gradient of an attack step" in (tmp_path / "forms.txt").read_text()
    assert "not begun" in done.stdout


def test_a_row_that_fails_loses_no_other_one():
    too_many = 10**14
    call = ["throughput.py", "--model", "small_cnn", "--batches", f"20,{too_many}", "--precisions", "bf16"]
    found = rows(*call, "--compile", "never", "--seconds", "0.05", "--device", "cpu")
    failed = {cells[0]: "Error" in cells[1] for cells in found}
    forms = [("sglr", 20), ("sglr", too_many), ("at", 20), ("at", too_many)]
    assert failed == {f"{method}, bf16, batch {batch}": batch == too_many for method, batch in forms}


def test_an_error_loses_nothing_that_comes_after_it_where_minutes_count(monkeypatch):
    call = ["throughput.py", "--model", "small_cnn", "--methods", "unknown,at", "--batches", "20", "--rounds", "1"]
    call += ["--precisions", "bf16", "--compile", "never", "--seconds", "0.05", "--device", "cpu"]
    done = subprocess.run([sys.executable, *call], cwd=FOLDER, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    monkeypatch.setenv("SGLR_BENCH_GO_ON", "1")
    failed = {cells[0]: "Error" in cells[1] for cells in rows(*call)}
    assert failed == {"unknown, bf16, batch 20": True, "at, bf16, batch 20": False}


def test_two_forms_that_differ_are_not_timed(tmp_path):
    for file in FOLDER.glob("*.py"):
        text = file.read_text()
        if file.name == "reference_step.py":
            text = text.replace("momentum=0.9", "momentum=0.8").replace("weight_decay=5e-4", "weight_decay=5e-2")
        if file.name == "layout.py":
            text = re.sub(r"^ROOT = .*$", f"ROOT = Path({str(FOLDER.parent)!r})", text, flags=re.MULTILINE)
        (tmp_path / file.name).write_text(text)
    call = [sys.executable, str(tmp_path / "step.py"), "--rounds", "1", "--steps", "1", "--device", "cpu"]
    done = subprocess.run(call, cwd=FOLDER.parent, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 1
    assert "the two forms do not agree; nothing is timed" in done.stderr
    assert "| what |" not in done.stdout
