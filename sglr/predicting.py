"""Classifying image files with a trained model, and attacking them."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from sglr import files, models, threat
from sglr.attacks import pgd
from sglr.config import ConfigError
from sglr.config.names import WEIGHTS
from sglr.exchange.provenance import gather
from sglr.image_files import read_image, save_image
from sglr.models.checkpoint import saved_as, saved_in
from sglr.random import torch_stream


@dataclass(frozen=True)
class Classifier:
    """A trained model, the shape (C, H, W) of its images, and the names of its classes."""

    model: nn.Module
    shape: tuple[int, int, int]
    classes: list[str]

    @classmethod
    def load(cls, path: Path) -> Self:
        """The model of ``checkpoint(path)``, named by ``class_names``; FileError where none can be read."""
        path = checkpoint(path)
        model = models.load_model(path)
        spec = files.read_json(saved_as(path)[1])
        channels, height, width = spec["shape"]
        return cls(model, (channels, height, width), class_names(path, int(spec["num_classes"])))


@dataclass(frozen=True)
class Attacking:
    """How image files are attacked, and where their adversarial images are saved."""

    norm: str
    eps_255: float
    """As ``radius`` returns it."""
    steps: int
    targets: Mapping[Path, Path]
    """By image file, as ``image_files.targets`` returns them."""


def lines(images: Iterable[Path], classifier: Classifier, attacking: Attacking | None = None) -> Iterator[str]:
    """For each image file in turn: its most probable classes, in words; under an attack also those of the adversarial
    image, which is saved. FileError where an image cannot be read or saved."""
    for path in images:
        x, done = read_image(path, classifier.shape)
        said = f"{path}{f' ({done})' if done else ''}: {_in_words(classifier, x)}"
        if attacking is not None:
            said += f"\n  {_saved_and_said(classifier, x, attacking, attacking.targets[path])}"
        yield said


def _saved_and_said(classifier: Classifier, x: Tensor, attacking: Attacking, target: Path) -> str:
    norm, eps_255, steps = attacking.norm, attacking.eps_255, attacking.steps
    x_adv = attacked(classifier.model, x, norm=norm, eps_255=eps_255, steps=steps)
    save_image(x_adv, target)
    moved = changed_by(x, x_adv, norm)
    change = f"changed by {moved:.4g}/255" if moved else "unchanged in whole 255ths"
    return f"under PGD-{steps}, {norm} {eps_255:g}/255, {change}: {_in_words(classifier, x_adv)} -> {target}"


def _in_words(classifier: Classifier, x: Tensor) -> str:
    """The three most probable classes of one image (1, C, H, W) in [0, 1], with their probabilities."""
    with torch.no_grad():
        probabilities = classifier.model(x).softmax(1)[0]
    best = probabilities.topk(min(3, len(probabilities)))
    named = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return ", ".join(f"{classifier.classes[c]} {p:.1%}" for c, p in named)


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


def class_names(path: Path, number: int) -> list[str]:
    """Names of the ``number`` classes of the model that is saved at ``path``.

    Those of the data it was trained on (of a model from elsewhere: evaluated on), if that is on record, as ``gather``
    says, and has names; else the numbers. artifacts/data may hold other data.
    """
    # A file of another name was copied from its records.
    data = gather(path).data if path.is_dir() or path.name == WEIGHTS else None
    classes = (data or {}).get("classes") or ()
    return list(map(str, classes if len(classes) == number else range(number)))
