"""The whole study by ``dvc repro``: what runs, what it leaves, and that it leaves the same again."""

import csv
import itertools
import json
import subprocess

import numpy as np
import pytest
from study_project import EPOCHS, ITEMS, Ended, Project

from sglr import load_model


@pytest.fixture(scope="module")
def study(first_run: tuple[Project, Ended]) -> Project:
    """The finished study, for reading only."""
    return first_run[0]


def rows(project: Project, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(project.read(name).splitlines()))


def arrays(project: Project, name: str) -> dict[str, np.ndarray]:
    with np.load(project.path / "artifacts" / name, allow_pickle=False) as stored:
        return {key: stored[key] for key in stored.files}


def test_from_nothing_every_item_runs_once_and_the_table_is_shown(first_run):
    project, ended = first_run
    assert sorted(ended.ran) == sorted(ITEMS)
    assert ended.ran[:3] == ["check", "prepare", "warmup@0"]
    assert ended.ran[-1] == "report"
    assert "| pgd2 | sglr |" in ended.output
    for method, name in itertools.product(("at", "sglr"), ("best", "last")):
        accuracy = json.loads(project.read(f"evaluate/{method}-0/metrics.json"))[name]["natural"]
        said = f"evaluate@{method}-0: natural accuracy of {name} {accuracy:.2%} (40 test examples)"
        assert ended.output.count(said) == 1, said


def test_a_second_time_nothing_runs_and_no_file_changes(finished):
    before = {path: path.stat().st_mtime_ns for path in (finished.path / "artifacts").rglob("*")}
    again = finished.repro()
    assert again.ran == again.restored == []
    assert "Data and pipelines are up to date." in again.output
    assert {path: path.stat().st_mtime_ns for path in (finished.path / "artifacts").rglob("*")} == before


@pytest.mark.slow
def test_the_plain_commands_leave_the_same_bytes(first_run, blank, tmp_path):
    """Without MLflow: it reaches no result. All other tests start stages from a process that has torch loaded."""
    plain = blank.copy(tmp_path / "study")
    assert sorted(plain.repro().ran) == sorted(ITEMS)
    assert plain.lock() == first_run[0].lock()


def test_dvc_knows_every_out(study):
    lock = study.lock()
    assert sorted(lock) == sorted(ITEMS)
    outs = {item: {out["path"].rsplit("/", 1)[-1] for out in entry["outs"]} for item, entry in lock.items()}
    labels = {"labels.npz", "labels.state", "labels_trace.npz"}
    training = {"best", "last", "checkpoints", "history.csv", "metrics.json"} | labels
    assert outs["prepare"] == {"data"}
    assert outs["warmup@0"] == {"model", "continuation.state", "history.csv", "metrics.json"}
    assert outs["train@sglr-0"] == training
    assert outs["evaluate@sglr-0"] == {"metrics.json", "outcomes.npz", "worst.npz"}
    assert outs["audit"] == {"metrics.json", "transfer.csv", "images.npz"}
    assert outs["analyze@sglr-0"] >= {"metrics.json", "memorization.csv", "gradients.csv", "calibration.csv"}
    assert outs["report"] == {"report"}
    for out in (out for entry in lock.values() for out in entry["outs"]):
        assert (study.path / out["path"]).exists(), out["path"]


def test_only_small_metrics_files_are_left_for_git(study):
    listed = ["git", "ls-files", "--others", "--exclude-standard", "artifacts", ".sglr", "mlflow.db"]
    shown = subprocess.run(listed, cwd=study.path, capture_output=True, text=True, check=True).stdout.split()
    folders = [f"{stage}/{method}-0" for stage in ("train", "evaluate", "analyze") for method in ("at", "sglr")]
    metrics = {f"artifacts/{folder}/metrics.json" for folder in ("warmup/0", "audit", *folders)}
    # DVC's own lists of what git is to leave out lie beside them.
    assert {path for path in shown if not path.endswith(".gitignore")} == metrics


def test_the_data_say_what_they_are(study):
    meta = json.loads(study.read("data/meta.json"))
    assert meta["sizes"] == {"train": 60, "validation": 30, "test": 100}
    assert (meta["shape"], meta["num_classes"], meta["noise"]["kind"]) == ([1, 8, 8], 10, "symmetric")
    assert meta["noise"]["rate"] == 0.3
    given, true = (np.load(study.path / f"artifacts/data/{name}_train.npy") for name in ("given", "true"))
    assert 0 < (given != true).sum() == meta["noise"]["flipped"] <= 18


@pytest.mark.parametrize("method", ["at", "sglr"])
def test_the_history_starts_with_the_warm_up_and_has_every_epoch(study, method):
    history = rows(study, f"train/{method}-0/history.csv")
    assert [int(row["epoch"]) for row in history] == [0, *range(1, EPOCHS + 1)]
    assert [row["phase"] for row in history] == ["warmup"] + EPOCHS * ["train"]
    # The rate drops on entering the milestones, 12 and 18.
    rates = [float(row["lr"]) for row in history]
    np.testing.assert_allclose(rates, [0.05, *[0.1] * 11, *[0.01] * 6, *[0.001] * 7])
    assert history[0]["train/pgd"] == ""
    measured = ("train/loss", "train/natural", "train/pgd", "val/natural", "val/pgd", "noisy/natural_given")
    assert all(row[key] != "" for row in history[1:] for key in (*measured, "noisy/pgd_true", "clean/pgd"))
    entropy = [float(row["refined/entropy"]) for row in history]
    assert entropy[:2] == [0, 0]
    assert all((value > 0) == (method == "sglr") for value in entropy[2:])


def test_best_is_the_first_epoch_of_highest_validation_accuracy_under_attack(study):
    for method in ("at", "sglr"):
        metrics = json.loads(study.read(f"train/{method}-0/metrics.json"))
        robust = [float(row["val/pgd"]) for row in rows(study, f"train/{method}-0/history.csv")[1:]]
        assert metrics["best_epoch"] == 1 + int(np.argmax(robust))
        assert metrics["best"]["val/pgd"] == max(robust)
        assert metrics["last"]["val/pgd"] == robust[-1]
        assert metrics["epochs"] == EPOCHS


def test_label_tables_follow_the_method(study):
    for method in ("at", "sglr"):
        labels, trace = (arrays(study, f"train/{method}-0/{name}.npz") for name in ("labels", "labels_trace"))
        np.testing.assert_allclose(labels["p"].sum(1), 1, atol=1e-5)
        onehot = np.eye(10, dtype=np.float32)[labels["given"]]
        assert np.array_equal(labels["p"], onehot) == (method == "at")
        assert 0 < (labels["given"] != labels["true"]).sum() <= 18
        # The trace follows some examples through all epochs and ends where the table does.
        assert trace["epochs"].tolist() == list(range(1, EPOCHS + 1))
        np.testing.assert_array_equal(trace["p"][-1], labels["p"][trace["index"]])
        np.testing.assert_array_equal(trace["p"][0], onehot[trace["index"]])
        noisy = (trace["given"] != trace["true"]).mean()
        assert 0 < noisy < 1


def test_kept_epochs_and_models_load(study):
    for name in ("best", "last", "checkpoints/2"):
        model = load_model(study.path / "artifacts/train/sglr-0" / name)
        assert not model.training
    kept = [study.path / f"artifacts/train/{method}-0/checkpoints/2/model.safetensors" for method in ("at", "sglr")]
    assert kept[0].read_bytes() != kept[1].read_bytes(), "refinement started with epoch 2"


def test_evaluation_counts_the_examples_it_says(study):
    for method in ("at", "sglr"):
        metrics = json.loads(study.read(f"evaluate/{method}-0/metrics.json"))
        outcomes = arrays(study, f"evaluate/{method}-0/outcomes.npz")
        assert set(metrics["last"]) >= {"natural", "fgsm", "pgd2"}
        for checkpoint in ("best", "last"):
            for attack, accuracy in metrics[checkpoint].items():
                correct = outcomes[f"{checkpoint}/{attack}"]
                assert accuracy == correct.mean()
                assert len(correct) == len(outcomes[f"index/{attack}"]) == metrics["n_examples"][attack] == 40
                bounds = metrics["interval"][checkpoint][attack]
                assert bounds["low"] <= accuracy <= bounds["high"]
                # An attack cannot help: what it leaves correct was correct.
                assert not (correct & ~outcomes[f"{checkpoint}/natural"]).any()
        for attack, gap in metrics["gap"].items():
            assert gap == metrics["best"][attack] - metrics["last"][attack]


def test_dvc_shows_metrics_and_plots(study):
    metrics = json.loads(study.call("dvc", "metrics", "show", "--json").output)[""]["data"]
    assert "artifacts/evaluate/sglr-0/metrics.json" in metrics
    plots = json.loads(study.call("dvc", "plots", "show", "--json").output)["data"]
    for shown in ("validation accuracy under PGD", "training loss"):
        (curves,) = (plots[name] for name in plots if name.endswith(shown))
        assert all(f'"{method}"' in json.dumps(curves) for method in ("at", "sglr"))
