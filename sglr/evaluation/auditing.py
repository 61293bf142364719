"""A second look at all evaluated models: kept images scored anew, and shown to the other methods' models."""

from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from sglr import files, models, threat
from sglr.attacks import predictions
from sglr.attacks.accuracy import require_allowed
from sglr.config import Config
from sglr.config.names import CHECKPOINTS
from sglr.data import Prepared, Split
from sglr.evaluation.model_checks import model_at, unchanged
from sglr.evaluation.on_models import trained_models
from sglr.evaluation.sanity import stronger
from sglr.evaluation.statistics import mcnemar, wilson
from sglr.models.precision import full_precision

# Images at a time: no batch size that an evaluation is likely to use.
_BATCH = 125
# Another order of the same sums may turn a prediction where the two largest logits are closer than this.
_TIE = 1e-3
# Images that are passed on to be looked at.
SHOWN = 8


@dataclass(frozen=True)
class Kept:
    """The worst-case images (k, C, H, W) of a model, how they were scored (k,), and by which margin (k,)."""

    images: torch.Tensor
    correct: np.ndarray
    margin: np.ndarray


@dataclass
class Audit:
    """What was found.

    items: by item and checkpoint the number of examples, how many are scored otherwise now (differing), and robust
    accuracy under the model's own attacks (worst) and with the other methods' images added (with_transfer).
    transfer: a row for each model and each method whose images it was shown. classes: predicted classes (n,) int64 by
    "<item>/<checkpoint>/natural" and ".../worst", and the true ones as "true". shown: the first images (k, C, H, W)
    float32, "natural" and by "<item>/<checkpoint>" their worst case.
    """

    items: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    transfer: list[dict[str, Any]] = field(default_factory=list)
    classes: dict[str, np.ndarray] = field(default_factory=dict)
    shown: dict[str, np.ndarray] = field(default_factory=dict)
    flags: list[str] = field(default_factory=list)


def audit(config: Config, data: Prepared, artifacts: Path, *, device: torch.device) -> Audit:
    """Score the images in ``artifacts/evaluate/*/worst.npz`` again, on their own model and on the other methods'.

    Methods meet by seed and checkpoint. Flags: images outside [0, 1] or the ball, or scored otherwise than when they
    were made; images of another method that break more of a model than its own attacks do (one-sided exact test).
    FileError names a file that is missing or does not fit, ModelError a model that does not stay as it is.
    """
    result, test = Audit(), data.test(device)
    checkpoints = list(product(config.experiment.seeds, CHECKPOINTS))
    with full_precision():
        for seed, checkpoint in tqdm(checkpoints, desc="audit", unit="checkpoint", disable=None, leave=False):
            paths = {
                method: path
                for method in config.experiment.methods
                for path in trained_models(artifacts / "train" / f"{method}-{seed}")
                if path.name == checkpoint
            }
            kept = {
                method: _read(
                    artifacts / "evaluate" / f"{method}-{seed}" / "worst.npz",
                    checkpoint, data.shape, data.meta["sizes"]["test"], device,
                )
                for method in paths
            }  # fmt: skip
            for method, path in paths.items():
                _model(config, test, path, method, seed, kept, result)
    return result


def write_audit(result: Audit, folder: Path) -> None:
    """Write ``metrics.json``, ``transfer.csv``, and ``images.npz``: "classes/..." and "shown/..." of the audit."""
    arrays = {f"classes/{name}": found for name, found in result.classes.items()}
    arrays |= {f"shown/{name}": images for name, images in result.shown.items()}
    files.write_arrays(folder / "images.npz", arrays)
    files.write_rows(folder / "transfer.csv", result.transfer)
    files.write_json(folder / "metrics.json", {"items": result.items, "flags": result.flags})


def rescore(
    rank: int, worst: Path, path: Path, test: Split, ball: threat.Threat, device: torch.device, threads: int, to: Path
) -> None:
    """In a process of its own: write to a JSON file what is wrong with the images kept for one model, as sentences.

    worst: the worst.npz; path: the model; test: its test split, or at least the first examples of it. Errors as in
    ``audit``.
    """
    torch.set_num_threads(threads)
    own = _read(worst, path.name, tuple(test.x.shape[1:]), len(test), device)
    n = len(own.correct)
    x, y = test.images(slice(0, n)).to(device), test.true[:n].to(device)
    with full_precision():
        model = models.load_model(path).to(device)
        right = [(predictions(model, images, _BATCH) == y).cpu().numpy() for images in (x, own.images)]
    files.write_json(to, _flags(own, x, ball, right[0] & right[1]))


def _model(
    config: Config, test: Split, path: Path, method: str, seed: int, kept: dict[str, Kept], result: Audit
) -> None:
    """Look at one model, and add what was found to ``result``."""
    own = kept[method]
    n = len(own.correct)
    x, y = test.images(slice(0, n)), test.true[:n]
    item, checkpoint = path.parent.name, path.name
    ball = threat.of(config.threat)
    model = models.load_model(path).to(test.true.device)
    with unchanged(model, model_at(path)):
        natural = predictions(model, x, _BATCH)
        worst = {other: predictions(model, shown.images, _BATCH) for other, shown in kept.items()}
    found = {other: ((natural == y) & (classes == y)).cpu().numpy() for other, classes in worst.items()}
    result.classes |= {
        "true": y.cpu().numpy(),
        f"{item}/{checkpoint}/natural": natural.cpu().numpy(),
        f"{item}/{checkpoint}/worst": worst[method].cpu().numpy(),
    }
    result.shown |= {
        "natural": x[:SHOWN].cpu().numpy(),
        f"{item}/{checkpoint}": own.images[:SHOWN].cpu().numpy(),
    }
    flags = _flags(own, x, ball, found[method])
    for source, correct in found.items():
        paired = mcnemar(own.correct, correct)
        low, high = wilson(int(correct.sum()), n)
        result.transfer.append(
            {
                "seed": seed, "checkpoint": checkpoint, "model": method, "images_of": source, "examples": n,
                "accuracy": float(correct.mean()), "low": low, "high": high, "broken_by_these_only": paired.only_a,
                "broken_by_own_only": paired.only_b, "p": paired.p,
            }
        )  # fmt: skip
        if source != method:
            flags += stronger(f"what was made for {source}", correct, own.correct, "what was made for this model")
    result.flags += [f"{item}/{checkpoint}: {flag}" for flag in flags]
    result.items.setdefault(item, {})[checkpoint] = {
        "examples": n,
        "differing": int((found[method] != own.correct).sum()),
        "worst": float(own.correct.mean()),
        "with_transfer": float(np.logical_and.reduce([own.correct, *found.values()]).mean()),
    }


def _flags(own: Kept, x: torch.Tensor, ball: threat.Threat, again: np.ndarray) -> list[str]:
    """What is wrong with kept images, from the examples x (k, C, H, W) and how they are scored now (k,)."""
    flags = []
    try:
        require_allowed(own.images, x, ball)
    except RuntimeError as error:
        flags.append(f"worst-case images: {error}")
    clear = int(((again != own.correct) & (np.abs(own.margin) > _TIE)).sum())
    if clear:
        flags.append(f"{clear} of {len(x)} worst-case images are scored otherwise in a new process")
    return flags


def _read(path: Path, checkpoint: str, shape: tuple[int, ...], examples: int, device: torch.device) -> Kept:
    """One checkpoint's part of a worst.npz; FileError where it is not what an evaluation of such data writes."""
    arrays = files.read_arrays(path)
    images, correct, margin = (arrays.get(f"{checkpoint}/{name}") for name in ("images", "correct", "margin"))
    if images is None or correct is None or margin is None:
        raise files.FileError(f"{path} has nothing on {checkpoint}: run the evaluation again (`dvc repro`).")
    n = correct.size
    if (
        images.shape != (n, *shape)
        or images.dtype != np.float32
        or correct.dtype != bool
        or correct.shape != (n,)
        or margin.shape != (n,)
        or n > examples
    ):
        raise files.FileError(f"{path} does not go with the data: run the evaluation again (`dvc repro`).")
    return Kept(torch.from_numpy(images).to(device), correct, margin)
