"""Classifying single images with a trained model, and attacking them."""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from sglr import files, models, threat
from sglr.attacks import pgd
from sglr.config import ConfigError
from sglr.config.names import WEIGHTS
from sglr.exchange.provenance import gather
from sglr.models.checkpoint import saved_as, saved_in
from sglr.random import torch_stream


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one image, best first, with their probabilities."""

    classes: tuple[int, ...]
    probabilities: tuple[float, ...]


def predict(model: nn.Module, x: Tensor, top: int = 3) -> Prediction:
    """The ``top`` most probable classes of one image (1, C, H, W) in [0, 1]."""
    with torch.no_grad():
        probabilities = model(x).softmax(1)[0]
    best = probabilities.topk(min(top, len(probabilities)))
    return Prediction(tuple(best.indices.tolist()), tuple(best.values.tolist()))


def radius(norm: str, eps_255: float) -> float:
    """The radius, in 255ths, of a ball that image files can show: under linf rounded down to a whole number.

    Raises ConfigError below 1, within which no image file differs from another.
    """
    if not math.isfinite(eps_255):
        raise ConfigError(f"a radius of {eps_255}/255 is none: --eps must be a finite number.")
    if eps_255 < 1:
        raise ConfigError(
            f"a radius of {eps_255:g}/255 changes no image file, whose pixels are whole 255ths: give 1 or more with"
            " --eps, or as threat.eps_255 in params.yaml."
        )
    return math.floor(eps_255) if norm == "linf" else eps_255


def attacked(model: nn.Module, x: Tensor, *, norm: str, eps_255: float, steps: int) -> Tensor:
    """An adversarial image (1, C, H, W): PGD away from the class that is predicted, step size a quarter of eps.

    Its pixels, like those of x, are 255ths, so that an image file holds exactly this image. ``eps_255`` as ``radius``
    returns it; a change of less than half a 255th in every pixel is rounded away.
    """
    ball = threat.build(norm, eps_255 / 255)
    with torch.no_grad():
        label = model(x).argmax(1)
    x_adv = pgd(model, x, label, threat=ball, steps=steps, generator=torch_stream(0, "predict"))
    return _in_255ths(x, x_adv, norm, eps_255)


def _in_255ths(x: Tensor, x_adv: Tensor, norm: str, eps_255: float) -> Tensor:
    """The change from x, which is in 255ths, rounded to whole ones and kept within the radius."""
    change = 255 * (x_adv - x)
    if norm == "linf":
        rounded = change.round().clamp(-eps_255, eps_255)
    else:
        # Rounding may lengthen the change: it is shortened until it does not.
        scales = (percent / 100 for percent in range(100, -1, -1))
        rounded = next(shorter for scale in scales if (shorter := (scale * change).round()).norm() <= eps_255)
    return ((255 * x).round() + rounded) / 255


def changed_by(x: Tensor, x_adv: Tensor, norm: str) -> float:
    """The distance of two images in 255ths, which both are in."""
    change = (255 * x_adv).round().double() - (255 * x).round().double()
    return float(change.abs().max() if norm == "linf" else change.norm())


def checkpoint(path: Path) -> Path:
    """The checkpoint of a training's folder, best or else last; ``path`` itself where it is no such folder."""
    return next(iter(saved_in(path)), path)


def load(path: Path) -> tuple[nn.Module, tuple[int, int, int], int]:
    """A trained model, the shape (C, H, W) of its images, and its number of classes; ``path`` as ``load_model``'s."""
    model = models.load_model(path)
    spec = files.read_json(saved_as(path)[1])
    channels, height, width = spec["shape"]
    return model, (channels, height, width), int(spec["num_classes"])


def class_names(path: Path, number: int) -> list[str]:
    """Names of the ``number`` classes of the model that ``load`` reads at ``path``.

    Those of the data it was trained on (of a model from elsewhere: evaluated on), if that is on record, as ``gather``
    says, and has names; else the numbers. artifacts/data may hold other data.
    """
    # A file of another name was copied from its records.
    data = gather(path).data if path.is_dir() or path.name == WEIGHTS else None
    classes = (data or {}).get("classes") or ()
    return list(map(str, classes if len(classes) == number else range(number)))
