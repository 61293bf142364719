"""The suite on one model from elsewhere: its test pictures, checks before anything is attacked, files as of any run."""

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sglr import files, models
from sglr.config import Config
from sglr.data import Prepared, Split
from sglr.evaluation.suite import Evaluation, evaluate

# float32 rounding of a normalisation undone, or of a picture decoded elsewhere.
_TOLERANCE = 1e-6
_PROBED = 128


class TestPictures(Prepared):
    """A test split that was not prepared here; it has no other split."""

    def __init__(self, split: Split, num_classes: int, source: dict[str, Any]) -> None:
        super().__init__(
            Path(),
            {"num_classes": num_classes, "shape": list(split.x.shape[1:]), "classes": None, "source": source},
            {},
        )
        self._split = split

    def test(self, device: torch.device | str = "cpu") -> Split:
        """The test split on a device."""
        return Split(*(part.to(device) for part in (self._split.x, self._split.given, self._split.true)))


def read_test(path: str | Path, num_classes: int | None = None) -> TestPictures:
    """Test pictures from an .npz with ``x_test`` and ``y_test``; other arrays in it are not read.

    Pictures are uint8, or floating point in [0, 1] (excess within 1e-6 is clipped), (N, C, H, W) or, with 1 or 3
    channels, (N, H, W, C); labels whole numbers from 0 to num_classes - 1 (None: the largest label is the last class).
    Raises FileError that names the array.
    """
    x, y = _arrays(Path(path))
    if len(x) == 0 or len(y) == 0:
        raise files.FileError(f"{path}: the test set is empty: there is nothing to evaluate on.")
    if x.ndim == 4 and x.shape[3] in (1, 3) and x.shape[1] not in (1, 3):
        x = x.transpose(0, 3, 1, 2)
    if x.ndim != 4 or 0 in x.shape:
        raise files.FileError(f"{path}: x_test has shape {x.shape}; pictures must be (N, C, H, W) or (N, H, W, C).")
    if x.dtype != np.uint8:
        x = _in_range(path, x)
    if y.ndim != 1 or not np.issubdtype(y.dtype, np.integer) or len(y) != len(x):
        raise files.FileError(
            f"{path}: y_test is {y.dtype} of shape {y.shape}; one whole number for each of {len(x)} pictures is needed."
        )
    classes = num_classes if num_classes is not None else int(y.max()) + 1
    if y.min() < 0 or y.max() >= classes:
        raise files.FileError(
            f"{path}: y_test holds labels {y.min()} to {y.max()}; with {classes} classes 0 to {classes - 1} are allowed."
        )
    labels = torch.from_numpy(y.astype(np.int64))
    split = Split(torch.from_numpy(np.ascontiguousarray(x)), labels, labels)
    return TestPictures(split, classes, {"name": "npz", "path": str(path), "sha256": files.digest(path)})


def check_logits(model: nn.Module, test: Split, num_classes: int) -> list[str]:
    """What is suspicious about a model's outputs on the first test pictures, in words to become flags.

    model: in eval mode, on the split's device. Raises FileError for outputs that are not finite numbers (N, num_classes)
    and for an empty split.
    """
    if len(test) == 0:
        raise files.FileError("the test split is empty: there is nothing to evaluate on.")
    x = test.pictures(slice(0, _PROBED))
    with torch.no_grad():
        logits = model(x)
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2 or logits.shape[0] != len(x):
        shape = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise files.FileError(
            f"the model gives {shape} for {len(x)} pictures; logits ({len(x)}, {num_classes}) are needed."
        )
    if logits.shape[1] != num_classes:
        raise files.FileError(f"the model has {logits.shape[1]} classes, the test set {num_classes}.")
    broken = int((~torch.isfinite(logits)).any(1).sum())
    if broken:
        raise files.FileError(
            f"the model's logits are NaN or infinite for {broken} of the first {len(x)} test pictures: its weights are"
            " damaged, or belong to another architecture."
        )
    sums = logits.sum(1)
    if bool((logits >= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=1e-4):
        return ["outputs are probabilities, not logits: their gradients vanish, so that attacks are too weak"]
    return []


def evaluate_foreign(
    config: Config, data: Prepared, foreign: models.Foreign, folder: str | Path, *, device: torch.device
) -> Evaluation:
    """Attack one model with every attack of ``config.evaluate``, under ``config.threat``; it counts as ``last``.

    ``folder/model/last`` receives the model in this project's form, so that it can be loaded, evaluated again and
    exported like one trained here. Raises FileError for an empty test split, pictures or classes that are not the
    model's, and logits that are not finite.
    """
    spec = foreign.spec
    if tuple(spec["shape"]) != data.shape or spec["num_classes"] != data.num_classes:
        raise files.FileError(
            f"the model is for {spec['num_classes']} classes and pictures {spec['shape']}, the test set has"
            f" {data.num_classes} classes and pictures {list(data.shape)} (channels, height, width)."
        )
    flags = check_logits(foreign.model.to(device), data.test(device), data.num_classes)
    trained = Path(folder) / "model"
    models.save(foreign.model, trained / "last", spec)
    # The form of a training without validation split: no best model.
    (trained / "best").mkdir(exist_ok=True)
    result = evaluate(config, data, trained, device=device)
    result.flags[:0] = [f"last: {flag}" for flag in flags]
    return result


def table(metrics: dict[str, Any]) -> str:
    """Accuracies of ``last`` with their 95% Wilson intervals, then the flags, as text."""
    width = max(len("attack"), *map(len, metrics["last"]))
    lines = [f"{'attack':<{width}}  {'examples':>8}  {'accuracy':>8}  95% interval"]
    for attack, accuracy in metrics["last"].items():
        interval = metrics["interval"]["last"][attack]
        lines.append(
            f"{attack:<{width}}  {metrics['n_examples'][attack]:>8}  {accuracy:>8.2%}"
            f"  {interval['low']:.2%} to {interval['high']:.2%}"
        )
    flags = metrics["flags"]
    return "\n".join([*lines, *(f"FLAG {flag}" for flag in flags), *([] if flags else ["no flags"])])


def _arrays(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise files.FileError(f"{path} holds a single array; an .npz archive with x_test and y_test is needed.")
        with archive:
            missing = [name for name in ("x_test", "y_test") if name not in archive.files]
            if missing:
                raise files.FileError(f"{path}: missing {', '.join(missing)} (it holds {', '.join(archive.files)}).")
            return archive["x_test"], archive["y_test"]
    except (OSError, ValueError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise files.FileError(f"cannot read {path}: {error}") from None


def _in_range(path: str | Path, x: np.ndarray) -> np.ndarray:
    """Floating point pictures as float32 in [0, 1]."""
    if not np.issubdtype(x.dtype, np.floating):
        raise files.FileError(
            f"{path}: x_test is {x.dtype}; pictures must be uint8 (0 to 255) or floating point (0 to 1)."
        )
    low, high = float(x.min()), float(x.max())
    if not (low >= -_TOLERANCE and high <= 1 + _TOLERANCE):
        raise files.FileError(
            f"{path}: x_test has values from {low:g} to {high:g}; floating point pictures must lie in [0, 1]"
            " (undo a normalisation and give it with --mean and --std, divide 0..255 by 255, or give uint8)."
        )
    return np.clip(x.astype(np.float32), 0, 1)
