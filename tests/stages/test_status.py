"""`sglr status` on real studies: what it says, held against what DVC then runs."""

import contextlib
import json
import os
import shutil
import signal
import time

import psutil
import pytest
import yaml
from command import call
from study_project import ITEMS, Ended, Project

from sglr import files
from sglr.project import status

AFTER = ["audit", "report"]
# Change, items that are out of date with the reason, and items that wait.
CHANGES = {
    "nothing": (lambda p: None, {}, []),
    "a setting of one method": (
        lambda p: p["methods"]["sglr"]["labels"].update(alpha=0.5),
        {"train@sglr-0": "methods.sglr.labels.alpha: 0.9 -> 0.5"},
        ["evaluate@sglr-0", "analyze@sglr-0", *AFTER],
    ),
    "calibration bins": (
        lambda p: p["analyze"].update(ece_bins=5),
        {"analyze@at-0": "analyze.ece_bins: 15 -> 5", "analyze@sglr-0": "analyze.ece_bins: 15 -> 5"},
        ["report"],
    ),
    "a seed more": (
        lambda p: p["experiment"].update(seeds=[0, 1]),
        {"warmup@1": ""},
        [*(f"{stage}@{method}-1" for stage in ("train", "evaluate", "analyze") for method in ("at", "sglr")), *AFTER],
    ),
}


def states(project: Project) -> dict[str, status.Status]:
    return {one.item: one for one in status.status(project.path)}


@pytest.mark.parametrize("change", CHANGES)
def test_it_says_what_runs_next_and_why(finished: Project, change: str):
    """Those that wait are what test_rerun sees run after the same change."""
    edit, reasons, waiting = CHANGES[change]
    finished.change(edit)
    found = states(finished)
    for item, reason in reasons.items():
        expected = ("out of date", [reason]) if reason else ("not run", [])
        assert (found[item].state, found[item].reasons) == expected
    assert {item for item, one in found.items() if one.state == "waiting"} == set(waiting)
    done = {item for item, one in found.items() if one.state == "done"}
    assert done == set(found) - {"check"} - set(reasons) - set(waiting) | ({"check"} if change == "nothing" else set())


@pytest.mark.slow
def test_dvc_runs_what_it_says(finished: Project):
    finished.change(CHANGES["calibration bins"][0])
    expected = {item for item, one in states(finished).items() if one.state != "done"}
    assert set(finished.repro().ran) == expected
    assert {one.state for one in states(finished).values()} == {"done"}


def test_an_output_that_is_missing_or_changed(finished: Project):
    (finished.path / "artifacts/evaluate/at-0/outcomes.npz").unlink()
    (finished.path / "artifacts/analyze/at-0/metrics.json").write_text("{}")
    found = states(finished)
    assert found["evaluate@at-0"].reasons == ["artifacts/evaluate/at-0/outcomes.npz is missing"]
    assert found["analyze@at-0"].reasons == ["artifacts/analyze/at-0/metrics.json was modified"]
    assert found["audit"].state == found["report"].state == "waiting"


@pytest.mark.slow
def test_a_run_that_was_refused_leaves_the_last_results_in_the_cache(finished: Project):
    """DVC removes an item's outputs before it begins."""
    finished.change(lambda p: p["train"]["optimizer"].update(lr=0.2))
    refusal = finished.call("dvc", "repro", "-s", "train@at-0", SGLR_DEVICE="cuda", CUDA_VISIBLE_DEVICES="")
    assert refusal.status != 0
    ended = finished.call("sglr", "status")
    assert "The last results of train@at-0 are in DVC's cache: `dvc checkout` brings them back (" in ended.output
    assert finished.call("dvc", "checkout", "train@at-0").status == 0
    found = states(finished)["train@at-0"]
    assert (found.state, [reason.partition(":")[0] for reason in found.reasons]) == ("waiting", ["for warmup@0"])
    assert "DVC's cache" not in finished.call("sglr", "status").output


def test_outputs_that_are_all_missing_are_named_together(finished: Project):
    shutil.rmtree(finished.path / "artifacts/warmup/0")
    assert states(finished)["warmup@0"].reasons == ["its outputs are missing"]


def test_code_that_changed(finished: Project):
    path = finished.path / "sglr/information/entropy.py"
    path.write_text(path.read_text() + "# A comment.\n")
    found = states(finished)
    assert found["analyze@sglr-0"].reasons == ["sglr/information changed"]
    assert found["evaluate@sglr-0"].state == "done"


def test_numbers_are_compared_as_dvc_writes_them(finished: Project):
    lock = finished.path / "dvc.lock"
    lock.write_text(lock.read_text().replace("weight_decay: 0.0005", "weight_decay: 2e-05"))
    finished.change(lambda p: p["train"]["optimizer"].update(weight_decay=2.0e-5))
    assert [item for item, one in states(finished).items() if one.state != "done"] == ["check"]


def test_a_lock_file_with_conflicts_of_a_merge(finished: Project):
    lock = finished.path / "dvc.lock"
    lock.write_text(lock.read_text().replace("stages:\n", "stages:\n<<<<<<< HEAD\n=======\n>>>>>>> other\n"))
    with pytest.raises(files.FileError, match=r"conflicts of a merge: `git checkout --ours dvc\.lock artifacts`"):
        status.status(finished.path)


def test_a_value_where_a_list_is_wanted(blank: Project, tmp_path, monkeypatch):
    project = blank.copy(tmp_path / "study")
    project.change(lambda p: p["experiment"].update(seeds=0))
    assert "'Value' object is not iterable" in project.call("dvc", "repro").output
    monkeypatch.chdir(project.path)
    said = "params.yaml: experiment.seeds must be a list (found 0); `sglr check` lists the errors."
    assert said in call("status").output
    assert "params.yaml: experiment.seeds: " in call("check").output


def test_params_that_cannot_be_used_are_mended_first(blank: Project, tmp_path, monkeypatch):
    project = blank.copy(tmp_path / "study")
    monkeypatch.chdir(project.path)
    assert call("status").output.endswith("; `dvc repro` runs the rest.\n")
    project.change(lambda p: p["threat"].update(eps_255=-8))
    assert "fix params.yaml first: `sglr check` lists" in call("status").output
    project.change(lambda p: p["experiment"].update(methods=['a"b', "\\at"]))
    assert 'train@a"b-0 ' in call("status").output
    assert "fix params.yaml first: `sglr check` lists" in call("status").output


def test_before_anything_ran(blank: Project):
    found = states(blank)
    assert list(found) == ITEMS
    assert (found["check"].state, found["prepare"].state) == ("not run", "waiting")


@pytest.mark.parametrize(
    ("dep", "makers"),
    [
        ("a", "one, three, two"),  # a folder with their outs
        ("a/b", "one, two"),
        ("a/b/one", "one"),
        ("a/b/one/deep/file", "one"),  # in an out that is a folder
        ("a/b/on", ""),
        ("a/b/one.csv", ""),
        ("given", ""),
    ],
)
def test_an_item_waits_for_what_makes_its_deps_or_a_part_of_them(tmp_path, dep, makers):
    stages = {"use": {"cmd": "use", "deps": [dep], "outs": ["used"]}}
    for name, out in {"one": "a/b/one", "two": "a/b/c/two", "three": "a/three"}.items():
        stages[name] = {"cmd": name, "outs": [out]}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    (tmp_path / "params.yaml").write_text("{}")
    (found,) = (one for one in status.status(tmp_path) if one.item == "use")
    assert (found.state, found.reasons) == (("waiting", [f"for {makers}"]) if makers else ("not run", []))


@pytest.mark.slow
def test_a_training_that_runs_and_one_whose_pipeline_is_gone(first_run: tuple[Project, Ended], tmp_path):
    project = first_run[0].copy(tmp_path / "study")
    project.environment.pop("SGLR_TRACKING", None)

    def longer(params):
        params["train"] |= {"epochs": 3000, "schedule": {"name": "constant"}}

    project.change(longer)
    dvc, stage = project.start("dvc", "repro", "train@at-0"), None
    try:
        deadline = time.monotonic() + 120
        while (one := states(project)["train@at-0"]).state != "running" or not one.progress or not one.progress.epoch:
            assert time.monotonic() < deadline, project.said()
            assert dvc.poll() is None, project.said()
            time.sleep(0.2)
        assert one.reasons[0].startswith("epoch ")
        found = {each["item"]: each for each in json.loads(project.call("sglr", "status", "--json").output)}
        assert found["train@at-0"]["progress"]["epochs"] == 3000
        assert found["train@at-0"]["progress"]["seconds"] > 0
        assert " of 3000" in one.reasons[0]
        assert states(project)["evaluate@at-0"].state == "waiting"
        (stage,) = (
            each for each in psutil.Process(dvc.pid).children(recursive=True) if "stages.train" in each.cmdline()
        )
        stage.suspend()  # it would stop by itself in half a second
        os.kill(dvc.pid, signal.SIGKILL)
        while (state := states(project)["train@at-0"].state) == "running":
            assert time.monotonic() < deadline
        assert state == "orphaned"
        stage.resume()
        while (state := states(project)["train@at-0"].state) == "orphaned":
            assert time.monotonic() < deadline
        assert state == "interrupted", "it stopped by itself"
    finally:
        if stage is not None:
            with contextlib.suppress(psutil.Error):
                stage.resume()
        dvc.kill()
        dvc.wait(30)
