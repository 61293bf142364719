"""Bad input stops the pipeline with one error that names the key or file, and no earlier result is touched."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from study_project import EPOCHS, Ended, Params, Project

from sglr import files
from sglr.project import status


def write_npz(project: Project, **changes: np.ndarray | None) -> None:
    """data/own.npz: 200 training and 100 test images, apart from ``changes`` (None: the array is missing)."""
    x, y = np.full((200, 1, 8, 8), 0.5, dtype=np.float32), np.arange(200) % 10
    arrays = {"x_train": x, "y_train": y, "x_test": x[:100], "y_test": y[:100]} | changes
    (project.path / "data").mkdir(exist_ok=True)
    np.savez(project.path / "data/own.npz", **{name: array for name, array in arrays.items() if array is not None})


def own(params: Params) -> None:
    params["data"]["source"] = {"name": "npz", "path": "data/own.npz"}


def results(project: Project) -> dict[str, str]:
    """Checksums of all results; the outcome of the check itself is none."""
    found = [path for path in (project.path / "artifacts").rglob("*") if path.is_file()]
    return {str(path): files.md5(path) for path in found if path.name not in ("check.txt", ".gitignore")}


def refused(project: Project, *expected: str, ran: tuple[str, ...] = ("check",), **environment: str) -> Ended:
    """``dvc repro`` fails after ``ran`` only, says ``expected`` in one error, and changes no result nor dvc.lock."""
    before, lock = results(project), project.lock()
    ended = project.call("dvc", "repro", **environment)
    assert ended.status != 0
    assert tuple(ended.ran) == ran, ended.output
    errors = [line for line in ended.output.splitlines() if line.startswith("Error: ")]
    assert len(errors) == (1 if ran else 0), ended.output
    for text in expected:
        assert text in (errors[0] if errors else ended.output), ended.output
    assert "Traceback" not in ended.output
    assert results(project) == before
    assert {item: entry for item, entry in project.lock().items() if item != "check"} == {
        item: entry for item, entry in lock.items() if item != "check"
    }
    return ended


def test_the_check_stops_what_params_cannot_say(finished: Project):
    """One after the other; at the end the right params again, and nothing has to run."""
    good = (finished.path / "params.yaml").read_text()
    cases: list[tuple[Callable[[Params], object], tuple[str, ...]]] = [
        (lambda p: p["train"].update(epoch=3), ("params.yaml: train.epoch: unknown key. Did you mean 'epochs'?",)),
        (lambda p: p["experiment"].update(methods=["at", "sglr", "sglt"]), ("method 'sglt'", "Did you mean 'sglr'?")),
        (lambda p: p["threat"].update(eps_255=-8), ("threat.eps_255", "greater than 0", "found -8")),
    ]
    for edit, expected in cases:
        finished.change(edit)
        refused(finished, *expected)
        (finished.path / "params.yaml").write_text(good)
        assert {one.state for one in status.status(finished.path)} == {"done"}
    assert finished.repro().ran == []
    assert (finished.path / "artifacts/check.txt").read_text() == "params.yaml is valid\n"


def test_a_file_that_is_no_yaml_is_named(finished: Project):
    path = finished.path / "params.yaml"
    path.write_text(path.read_text() + "\nexperiment: {name: twice}\n")
    refused(finished, "params.yaml", ran=())


def test_a_gpu_that_is_not_there(finished: Project):
    finished.change(lambda p: p["train"].update(epochs=EPOCHS + 1))
    nothing = {"SGLR_DEVICE": "cuda", "CUDA_VISIBLE_DEVICES": ""}
    refused(finished, "SGLR_DEVICE='cuda'", "torch sees 0", "SGLR_DEVICE=cpu", **nothing)


def test_arrays_of_your_own_that_cannot_be_used(finished: Project):
    """One of the errors in tests/data/test_data_npz.py, and what it costs."""
    write_npz(finished, y_train=np.arange(199) % 10)
    finished.change(own)
    refused(finished, "data/own.npz", "x_train has 200 images, y_train 199 labels", ran=("check", "prepare"))


def test_no_network_and_no_files(finished: Project, tmp_path: Path):
    finished.change(lambda p: p["data"].update(source="cifar10"))
    nowhere = {"https_proxy": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9", "no_proxy": ""}
    empty = tmp_path / "empty"
    refused(
        finished, "cifar-10-python.tar.gz is not in", str(empty), "SGLR_DATA_ROOT", ran=("check", "prepare"),
        SGLR_DATA_ROOT=str(empty), **nowhere,
    )  # fmt: skip


@pytest.mark.slow
def test_attacks_that_such_data_cannot_have_are_named_before_anything_is_trained(finished: Project):
    """Not only when it is evaluated, hours later."""
    write_npz(finished, y_train=np.arange(200) % 3, y_test=np.arange(100) % 3)
    finished.change(lambda p: (own(p), p["evaluate"]["attacks"].update(aa="autoattack")))
    ended = finished.call("dvc", "repro", "warmup@0")
    assert (ended.status, ended.ran) == (0, ["check", "prepare", "warmup@0"])
    said = (
        "the evaluation will stop, after the trainings: evaluate.attacks.aa cannot be run on this data: its DLR losses"
    )
    assert ended.output.count(said) == 1
    (problem,) = [line for line in finished.call("sglr", "doctor").output.splitlines() if line.startswith("problem")]
    assert "evaluate.attacks.aa cannot be run on this data: its DLR losses need at least 4 classes" in problem


@pytest.mark.slow
def test_more_in_a_batch_than_there_is(finished: Project):
    """Where the number of training examples stands in params, the check sees it; else the first stage that knows it."""
    finished.change(lambda p: p["train"].update(batch_size=61))
    refused(finished, "train.batch_size 61", "data.train_size 60")
    write_npz(finished)
    finished.change(lambda p: (own(p), p["data"].update(train_size=None), p["train"].update(batch_size=171)))
    ended = finished.call("dvc", "repro")
    assert (ended.status != 0, ended.ran) == (True, ["check", "prepare", "warmup@0"])
    assert "Error: train.batch_size 171 is larger than the training set (170 examples)" in ended.output


def test_params_edited_while_a_stage_runs(finished: Project):
    """DVC would record the new value as the one used: the stage fails instead, and the next run is right."""
    lock = finished.lock()
    finished.change(lambda p: p["train"].update(epochs=EPOCHS + 1))
    dvc = finished.start("dvc", "repro", SGLR_SNAPSHOT_SECONDS="0")
    deadline = time.monotonic() + 120
    while not list((finished.path / ".sglr/snapshots/train").glob("*/snapshot-*")) and dvc.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    finished.change(lambda p: p["train"].update(epochs=EPOCHS + 2))
    assert dvc.wait(120) != 0, finished.said()
    assert "Error: train changed in params.yaml while train@at-0 was running; its result is" in finished.said()
    assert finished.lock()["train@at-0"] == lock["train@at-0"]
    finished.repro("--single-item", "train@at-0")
    assert finished.lock()["train@at-0"]["params"]["params.yaml"]["train"]["epochs"] == EPOCHS + 2
    assert len(finished.read("train/at-0/history.csv").splitlines()) == 1 + 1 + EPOCHS + 2


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("stages.train", "at_awp", "0"), "method 'at_awp' is not in experiment.methods: at, sglr"),
        (("stages.evaluate", "at", "5"), "seed 5 is not in experiment.seeds: 0"),
    ],
)
def test_a_stage_called_by_hand_for_what_is_not_listed(finished: Project, arguments, expected):
    before = results(finished)
    ended = finished.call("python", "-m", *arguments)
    assert (ended.status, ended.output) == (1, f"Error: {expected}\n")
    assert results(finished) == before


def test_a_machine_without_git(finished: Project, tmp_path: Path):
    """Tracking, which notes the commit, is off as well as on."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").symlink_to(Path(finished.environment["PATH"].split(":")[0]) / "python")
    ended = finished.call("python", "-m", "stages.check", PATH=str(tmp_path / "bin"))
    assert (ended.status, ended.output) == (0, "")


def test_a_stage_called_by_hand_where_nothing_is(blank: Project, tmp_path: Path, warm: Path):
    project = blank.copy(tmp_path / "new", warm)
    ended = project.call("python", "-m", "stages.train", "at", "0")
    assert ended.status == 1
    assert ended.output.startswith("Error: train@at-0 needs artifacts/check.txt, which is missing; `dvc repro ")
    (project.path / "dvc.yaml").unlink()
    assert "Error: there is no dvc.yaml in" in project.call("python", "-m", "stages.check").output


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("SGLR_DEVICE", "gpu", "SGLR_DEVICE='gpu' is not a device; use auto, cpu, cuda or cuda:<number>."),
        ("SGLR_DEVICE", "meta", "SGLR_DEVICE='meta' is not supported; use auto, cpu, cuda or cuda:<number>."),
        ("SGLR_SNAPSHOT_SECONDS", "often", "SGLR_SNAPSHOT_SECONDS='often' is not a number of seconds."),
        ("SGLR_TRACKING", "false", "SGLR_TRACKING='false' is not known; use on, off or required."),
    ],
)
def test_an_environment_that_cannot_be_used(finished: Project, name, value, expected):
    before = results(finished)
    ended = finished.call("python", "-m", "stages.train", "at", "0", **{name: value})
    assert (ended.status, ended.output) == (1, f"Error: {expected}\n")
    assert results(finished) == before
