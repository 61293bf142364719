"""Artifacts of a made-up study: two methods, outcomes whose means can be worked out on paper."""

import csv
import json
import os
import tempfile
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

from sglr import config, report
from sglr.config.reader import validate

PARAMS = """
experiment: {name: made-up, methods: [at, sglr], seeds: [0, 1], threads: 1}
data:
  source: {name: digits, test_size: 800}
  train_size: 300
  validation_size: 200
  split_seed: 0
  noise: {kind: symmetric, rate: 0.4, seed: 0}
  noise_per_seed: true
  augment: {crop_padding: 0, flip: false}
model: {name: small_cnn}
threat: {norm: linf, eps_255: 25.5}
warmup: {objective: standard, epochs: 1, lr: 0.05}
train:
  epochs: 6
  batch_size: 100
  optimizer: {lr: 0.1, momentum: 0.9, nesterov: false, weight_decay: 5.0e-4}
  schedule: {name: constant}
  attack: {steps: 10, step_size_255: 6.375, random_start: true}
  attack_bn: eval
  precision: fp32
  compile: never
  selection: {steps: 10, every: 1}
  keep_epochs: []
methods:
  at: {objective: at, labels: hard, weights: none}
  sglr: {objective: at, labels: {name: refinement, start_epoch: 4}, weights: none}
evaluate:
  n_examples: null
  batch_size: 100
  compile: never
  seed: 0
  attacks:
    fgsm: fgsm
    pgd20: {name: pgd, steps: 20}
    autoattack: {name: autoattack, n_examples: 20}
  sweep: null
  sanity: null
analyze:
  n_examples: 100
  batch_size: 100
  seed: 0
  attack: {steps: 10, step_size_255: 6.375, random_start: true}
  ece_bins: 15
  probe: {folds: 5, l2: 1.0}
  index_noise: [0.2]
  gradients: {n_examples: 10, chunk: 10}
  sharpness: null
report: {baseline: at, bootstrap: 500, seed: 0}
"""

# Correct answers under pgd20 of 200 test examples, for seeds 0 and 1. Gaps: at 0.20 and 0.20, sglr 0.01 and -0.01.
CORRECT = {
    "at": {"best": (140, 150), "last": (100, 110)},
    "sglr": {"best": (142, 148), "last": (140, 150)},
}
EXAMPLES = {"natural": 200, "fgsm": 200, "pgd20": 200, "autoattack": 20}
EASIER = {"natural": 40, "fgsm": 20, "pgd20": 0, "autoattack": 0}
EPOCHS = 6


Make = Callable[..., tuple[config.Config, Path]]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """``build`` below, in the test's own folder."""
    return partial(build, tmp_path / "artifacts")


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports without figures, for tests that look at words and numbers: drawing takes seconds."""
    monkeypatch.setattr("sglr.report.writer.draw", lambda study, results: defaultdict(list))


@pytest.fixture
def without_pdf(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports whose PDF figures are empty, for tests that look at the page: embedding fonts takes seconds."""
    monkeypatch.setattr("sglr.report.drawing._pdf", lambda figure: b"")


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the plain study, for tests that only look at it: one for all processes of a session."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "written"
    with FileLock(folder.with_suffix(".lock")):
        if not folder.is_dir():
            with tempfile.TemporaryDirectory(dir=folder.parent) as made:
                report.write(*build(Path(made) / "artifacts"), Path(made) / "report")
                (Path(made) / "report").rename(folder)
    return folder


def build(
    artifacts: Path,
    methods: tuple[str, ...] = ("at", "sglr"),
    seeds: tuple[int, ...] = (0, 1),
    best: bool = True,
    correct: dict[str, dict[str, tuple[int, int]]] = CORRECT,
    examples: dict[str, int] = EXAMPLES,
    change: Callable[[dict[str, Any]], None] = lambda values: None,
) -> tuple[config.Config, Path]:
    """Write the artifacts and return the config and their folder.

    ``correct``: method -> checkpoint -> examples classified correctly under pgd20, per seed; ``examples``: attack ->
    number of test examples; ``change`` edits the plain values of the params before they are validated.
    """
    values = config.parse(PARAMS)
    values["experiment"] |= {"methods": list(methods), "seeds": list(seeds)}
    change(values)
    meta = {"source": {"name": "digits"}, "shape": [1, 8, 8], "num_classes": 3, "classes": ["0", "1", "2"]}
    meta["sizes"] = {"train": 120, "validation": 200, "test": 200}
    meta["noise"] = {"flipped": 0 if values["data"]["noise"]["kind"] == "none" else 40}
    write_json(artifacts / "data/meta.json", meta)
    for method in methods:
        for seed in seeds:
            _train(artifacts / f"train/{method}-{seed}", method, best)
            _evaluate(artifacts / f"evaluate/{method}-{seed}", correct[method], examples, seed, best)
            _analyze(artifacts / f"analyze/{method}-{seed}", seed, best)
    _audit(artifacts / "audit", methods, seeds, ("best", "last") if best else ("last",))
    return validate(values), artifacts


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def _train(folder: Path, method: str, best: bool) -> None:
    write_json(folder / "metrics.json", {"best_epoch": 3 if best else None, "epochs": EPOCHS})
    # Ten training examples, four with a wrong label; refinement recovers three of these and corrupts one of the others.
    true = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 0])
    given = np.array([1, 2, 0, 1, 1, 2, 0, 1, 2, 0])
    found = np.array([0, 1, 2, 1, 2, 2, 0, 1, 2, 0]) if method == "sglr" else given
    np.savez(folder / "labels.npz", p=np.eye(3, dtype=np.float32)[found], given=given, true=true)
    # Refined labels go linearly from the given to the found ones.
    share = np.linspace(0, 1, EPOCHS)[:, None, None]
    p = (1 - share) * np.eye(3)[given][None] + share * np.eye(3)[found][None]
    np.savez(folder / "labels_trace.npz", index=np.arange(10), epochs=np.arange(1, EPOCHS + 1), p=p.astype(np.float32))
    fall = 4 if method == "at" else 0
    rows = [{"phase": "warmup", "epoch": 0, "lr": 0.05, "train/natural": 0.3, "val/natural": 0.3}]
    rows += [
        {
            "phase": "train", "epoch": epoch, "lr": 0.1, "train/loss": 1 / epoch, "train/natural": 0.5,
            "train/pgd": 0.1 * epoch, "val/natural": 0.5 if best else None,
            "val/pgd": (60 + 2 * epoch - fall * max(0, epoch - 3)) / 100 if best else None,
            "noisy/pgd_given": 0.1 * epoch, "noisy/pgd_true": 0.2, "refined/entropy": 0.0, "refined/recovered": 0.0,
            "refined/corrupted": 0.0,
        }
        for epoch in range(1, EPOCHS + 1)
    ]  # fmt: skip
    with (folder / "history.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[-1]))
        writer.writeheader()
        writer.writerows(rows)


def _evaluate(
    folder: Path, correct: dict[str, tuple[int, int]], examples: dict[str, int], seed: int, best: bool
) -> None:
    checkpoints = ("best", "last") if best else ("last",)
    arrays: dict[str, Any] = {f"index/{attack}": np.arange(n) for attack, n in examples.items()}
    for checkpoint in checkpoints:
        for attack, n in examples.items():
            arrays[f"{checkpoint}/{attack}"] = np.arange(n) < correct[checkpoint][seed] * n // 200 + EASIER[attack]
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "outcomes.npz", **arrays)
    metrics: dict[str, Any] = {
        checkpoint: {attack: arrays[f"{checkpoint}/{attack}"].mean() for attack in examples}
        for checkpoint in checkpoints
    }
    metrics["interval"] = {"last": {"pgd20": {"low": 0.4, "high": 0.6}}}
    metrics["n_examples"] = examples
    metrics["flags"] = []
    write_json(folder / "metrics.json", metrics)


def _audit(folder: Path, methods: tuple[str, ...], seeds: tuple[int, ...], checkpoints: tuple[str, ...]) -> None:
    """Every model keeps 0.5 on its own images, and 0.75 (seed 0: 0.7) on those of others."""
    write_json(folder / "metrics.json", {"items": {}, "flags": []})
    # Class c is taken for c + 1 in a third of the worst cases.
    true = np.arange(200) % 3
    worst = np.where(np.arange(200) % 9 < 3, (true + 1) % 3, true)
    arrays = {"classes/true": true, "shown/natural": np.full((8, 1, 8, 8), 0.5, dtype=np.float32)}
    for method, seed, checkpoint in product(methods, seeds, checkpoints):
        item = f"{method}-{seed}/{checkpoint}"
        arrays |= {f"classes/{item}/natural": true, f"classes/{item}/worst": worst}
        arrays[f"shown/{item}"] = np.full((8, 1, 8, 8), 0.6, dtype=np.float32)
    np.savez(folder / "images.npz", **arrays)
    columns = ("seed", "checkpoint", "model", "images_of", "examples", "accuracy")
    with (folder / "transfer.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for seed, checkpoint, model, source in product(seeds, checkpoints, methods, methods):
            accuracy = 0.5 if model == source else 0.75 if seed else 0.7
            writer.writerow((seed, checkpoint, model, source, 200, accuracy))


def _analyze(folder: Path, seed: int, best: bool) -> None:
    numbers = {"natural/ece": 0.25 + seed / 10, "natural/information": 1.5}
    metrics = {
        **({"best": numbers} if best else {}),
        "last": numbers,
        "run": {"refined": {"nll": 0.5}, "name": "not a number"},
        "interval": {"last": {"natural/information": {"low": 1.25, "high": 1.75}}},
    }
    write_json(folder / "metrics.json", metrics)
    write_json(folder / "notes.json", {"probe": "a lower bound", "bias": f"of seed {seed}"})
