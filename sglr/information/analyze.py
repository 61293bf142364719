"""The analysis of one training run: reads its folder, returns numbers and tables."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from sglr import files
from sglr.config import Config
from sglr.config.names import CHECKPOINTS
from sglr.data import Prepared
from sglr.information import calibration, memorization, notes
from sglr.information.analyzed_run import AnalyzedRun, open_run
from sglr.information.entropy import contingency, entropy, label_entropy, mutual_information_bias
from sglr.information.findings import Findings
from sglr.information.on_predictions import predictions
from sglr.information.on_training import training
from sglr.models.precision import full_precision

TABLES = ("memorization", "gradients", "calibration", "quantities", "weights", "index_information", "landscape")


def analyze(
    config: Config,
    data: Prepared,
    folder: Path,
    method: str,
    seed: int,
    device: torch.device,
    *,
    warmup: Path | None = None,
    on_cost: Callable[[str, float], None] = lambda name, seconds: None,
) -> dict[str, Any]:
    """Analyse every checkpoint of the training of ``method`` in ``folder``, which ran with ``seed`` on ``data``.

    Keys of the result: ``best`` (absent without a validation split), ``last`` and ``run``, each name -> number;
    ``interval``, part -> name -> low, high, where examples can be redrawn; ``n_examples``; ``notes``, name -> text:
    what was assumed, and why something is absent; ``tables``, the rows of the csv files that ``write`` makes, among
    them ``quantities``: all numbers of all checkpoints (start, the kept epochs, best, last), interval and sample size.

    warmup: the model training began with, which the information in the weights is measured from; on_cost: gets the
    seconds each part took. Test images are the first ``analyze.n_examples`` of the test split, training images as
    many drawn with ``analyze.seed``. Raises FileError when a file is missing, damaged, or belongs to other data.
    """
    run = open_run(config, data, folder, method, seed, device, warmup)
    _introduce(run)
    parts: dict[str, Findings] = {}
    for checkpoint in tqdm(run.checkpoints, desc="analyze", unit="model", disable=None, leave=False):
        model = checkpoint.load(device)
        findings = parts[checkpoint.name] = Findings(config.analyze.seed)
        began = time.perf_counter()
        with full_precision():
            correct = predictions(run, checkpoint, model, findings)
            between = time.perf_counter()
            training(run, checkpoint, model, findings, correct)
        on_cost(f"{checkpoint.name}/predictions", between - began)
        on_cost(f"{checkpoint.name}/training", time.perf_counter() - between)
        for row in findings.rows():
            run.add("quantities", checkpoint, **row)
    # Those of all checkpoints are in quantities.csv.
    parts = {name: parts[name] for name in CHECKPOINTS if name in parts} | {"run": _labels(run)}
    noisy = run.trained.noisy
    return {
        **{name: part.numbers for name, part in parts.items()},
        "interval": {name: part.intervals for name, part in parts.items()},
        "n_examples": {
            "test": len(run.test_index),
            "train": len(run.train_index),
            "train_noisy": int(noisy[run.train_index].sum()),
            "labels": len(noisy),
            "labels_noisy": int(noisy.sum()),
        },
        "notes": run.notes,
        "tables": {name: run.tables.get(name, []) for name in TABLES},
    }


def write(result: dict[str, Any], folder: Path) -> None:
    """Write the result of ``analyze``: ``metrics.json``, ``notes.json`` and one csv per table."""
    for name in TABLES:
        files.write_rows(folder / f"{name}.csv", result["tables"][name] or [{"checkpoint": None, "epoch": None}])
    files.write_json(folder / "notes.json", result["notes"])
    numbers = {key: value for key, value in result.items() if key not in ("tables", "notes")}
    files.write_json(folder / "metrics.json", numbers)


def _introduce(run: AnalyzedRun) -> None:
    """Assumptions that hold throughout, and the memorisation curves, with the bound on label information by epoch."""
    config, trained = run.config, run.trained
    warmed_up = config.warmup.epochs > 0 and run.chosen.start == "warmup"
    run.notes.update(
        source=notes.SOURCE, attack=notes.ATTACK, gradient=notes.GRADIENTS, full_gradient=notes.FULL_GRADIENTS,
        probe=notes.PROBE, index_information=notes.INDEX, memorization=notes.MEMORIZATION, gap=notes.GAP,
        weights=notes.WARMED_UP if warmed_up else notes.NOT_WARMED_UP,
    )  # fmt: skip
    if config.analyze.sharpness:
        run.notes["sharpness"] = notes.SHARPNESS
    if trained.best_epoch is None:
        run.notes["best"] = notes.NO_BEST
    if run.noise_entropy is not None:
        run.notes["label_information"] = notes.LABEL_INFORMATION
    elif trained.noisy.any():
        run.notes["noise"] = notes.NOT_DRAWN
    else:
        run.notes["noise"] = notes.no_noise(run.noise_kind)
    run.tables["memorization"] = memorization.curves(trained.history, run.noise_entropy)


def _labels(run: AnalyzedRun) -> Findings:
    """How the refined labels after the last epoch, over all training examples, relate to the true labels."""
    findings, trained = Findings(run.config.analyze.seed), run.trained
    bins = run.config.analyze.ece_bins
    recovered, corrupted = memorization.recovery(trained.refined, trained.given, trained.true)
    findings.mean("refined/entropy", entropy(trained.refined))
    findings.mean("refined/recovered", recovered)
    findings.mean("refined/corrupted", corrupted)
    findings.mean("refined/brier", calibration.brier(trained.refined, trained.true))
    findings.ece("refined/ece", trained.refined, trained.true, bins)
    last = next(one for one in run.checkpoints if one.name == "last")
    for row in calibration.reliability_table(trained.refined, trained.true, bins):
        run.add("calibration", last, input="refined", scaled=0, **row)
    with np.errstate(divide="ignore"):
        surprise = calibration.nll(np.log(trained.refined), trained.true)
    if np.isfinite(surprise).all():
        findings.mean("refined/nll", surprise)
    else:
        run.notes["refined/nll"] = notes.INFINITE_NLL
    for name, labels in (("refined", trained.refined.argmax(1)), ("given", trained.given)):
        table = contingency(labels, trained.true, trained.refined.shape[1])
        findings.shared_information(f"{name}/information", table)
        run.notes[f"{name}/information"] = notes.information_bias(name, mutual_information_bias(table))
    if run.noise_information is not None:
        findings.number("given/channel_information", run.noise_information, len(trained.true))
        run.notes["given/channel_information"] = notes.CHANNEL
    test = run.test.true[run.test_index].cpu().numpy()
    findings.number("labels/entropy", label_entropy(test), len(test))
    return findings
