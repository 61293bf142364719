"""Classifying pictures from files with a trained model, and attacking them."""

import itertools
import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from sglr import files, models, threat
from sglr.attacks import pgd
from sglr.config import ConfigError
from sglr.exchange.provenance import gather
from sglr.models.checkpoint import WEIGHTS, saved_as
from sglr.random import torch_stream

if TYPE_CHECKING:
    from PIL import Image

# Others have readers that start programs (EPS) or have seen few hostile files.
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
# Unfolded, a picture takes up to sixteen bytes for each: this many are a gigabyte.
_MOST_PIXELS = 2**26
# What undoes the orientations 2 to 8 of EXIF, by Pillow's names.
_TURNS = ("FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_270", "TRANSVERSE", "ROTATE_90")
# What PNG files written here say under "Software".
_MADE_BY = "sglr predict --attack"


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one picture, best first, with their probabilities."""

    classes: tuple[int, ...]
    probabilities: tuple[float, ...]


def read_picture(path: Path, shape: tuple[int, int, int]) -> tuple[Tensor, str]:
    """A picture file as (1, C, H, W) in [0, 1] for a model of pictures ``shape``, and what was done to it, in words.

    As a viewer shows it, transparent parts over white; grey or colour as the model wants it; resized (bilinear) where
    the size differs. FileError when it is no picture, or one whose range of values is not known.
    """
    from PIL import Image, UnidentifiedImageError

    channels, height, width = shape
    if channels not in (1, 3):
        raise files.FileError(f"the model takes pictures of {channels} channels: image files have 1 or 3.")
    try:
        with Image.open(path, formats=_FORMATS) as found:
            if found.width * found.height > _MOST_PIXELS:
                raise files.FileError(
                    f"{path} has {found.width}x{found.height} pixels; up to {_MOST_PIXELS:,} are read. Make it smaller."
                )
            picture, done = _as_shown(found, path)
            picture = picture.convert("L" if channels == 1 else "RGB")
    # Of a broken PNG, Pillow says SyntaxError; a damaged one of another format breaks its reader in other ways.
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError, LookupError, EOFError, struct.error, MemoryError,
            Image.DecompressionBombError) as error:  # fmt: skip
        raise files.FileError(f"cannot read {path} as a picture: {error}") from None
    if picture.size != (width, height):
        done.append(f"resized from {picture.width}x{picture.height} to {width}x{height}")
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    values = np.asarray(picture, dtype=np.uint8).reshape(height, width, channels).transpose(2, 0, 1)
    return torch.from_numpy(values.copy()).float().div(255)[None], ", ".join(done)


def _as_shown(found: "Image.Image", path: Path) -> "tuple[Image.Image, list[str]]":
    """A picture as a viewer shows it, with 8 bits a value, and what was done to it, in words; FileError: see above."""
    from PIL import ExifTags, Image

    done = []
    # Not by ImageOps.exif_transpose, which ends in a TypeError and the like where other EXIF data are odd.
    orientation = found.getexif().get(ExifTags.Base.Orientation)
    turn = next((name for number, name in enumerate(_TURNS, 2) if number == orientation), None)
    found.load()
    picture = found
    if turn is not None:
        done.append("turned as its EXIF data say")
        if found.format != "TIFF":  # Pillow turns these itself
            picture = found.transpose(Image.Transpose[turn])
    # Of PNG and PPM, Pillow has 16 bits of grey as 32.
    if picture.mode.startswith("I;16") or (picture.mode == "I" and found.format in ("PNG", "PPM")):
        picture = _in_8_bits(picture)
    if picture.mode in ("I", "F"):
        raise files.FileError(
            f"{path} has grey values of 32 bits or with a sign, and which of them is white is not known: save it with 8"
            " or 16 bits."
        )
    if "A" in picture.getbands() or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        alpha = picture.getchannel("A")
        if alpha.getextrema() != (255, 255):
            done.append("transparent parts over white")
            seen = Image.new("RGB", picture.size, "white")
            seen.paste(picture, mask=alpha)
            picture = seen
    return picture, done


def _in_8_bits(picture: "Image.Image") -> "Image.Image":
    """A picture with 16 bits of grey, 65535 being white, rounded to 8; a level that is transparent stays so."""
    from PIL import Image

    values = np.asarray(picture)
    rounded = Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))
    if "transparency" in picture.info:
        rounded.putalpha(Image.fromarray(np.where(values == picture.info["transparency"], 0, 255).astype(np.uint8)))
    return rounded


def predict(model: nn.Module, x: Tensor, top: int = 3) -> Prediction:
    """The ``top`` most probable classes of one picture (1, C, H, W) in [0, 1]."""
    with torch.no_grad():
        probabilities = model(x).softmax(1)[0]
    best = probabilities.topk(min(top, len(probabilities)))
    return Prediction(tuple(best.indices.tolist()), tuple(best.values.tolist()))


def radius(norm: str, eps_255: float) -> float:
    """The radius, in 255ths, of a ball that picture files can show: under linf a whole number, what is over is cut off.

    Raises ConfigError below 1, within which no picture file differs from another.
    """
    if eps_255 < 1:
        raise ConfigError(
            f"a radius of {eps_255:g}/255 changes no picture file, whose pixels are whole 255ths: give 1 or more with"
            " --eps, or as threat.eps_255 in params.yaml."
        )
    return math.floor(eps_255) if norm == "linf" else eps_255


def attacked(model: nn.Module, x: Tensor, *, norm: str, eps_255: float, steps: int) -> Tensor:
    """An adversarial picture (1, C, H, W): PGD away from the class that is predicted, step size a quarter of eps.

    Its pixels, like those of x, are 255ths, so that an image file holds exactly this picture. ``eps_255`` as ``radius``
    gives it; of a smaller change than half a 255th in every pixel nothing is left.
    """
    ball = threat.build(norm, eps_255 / 255)
    with torch.no_grad():
        label = model(x).argmax(1)
    x_adv = pgd(model, x, label, threat=ball, step_size=ball.eps / 4, steps=steps, generator=torch_stream(0, "predict"))
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
    """The distance of two pictures in 255ths, which both are in."""
    change = (255 * x_adv).round().double() - (255 * x).round().double()
    return float(change.abs().max() if norm == "linf" else change.norm())


def targets(pictures: Iterable[str], folder: Path) -> dict[Path, Path]:
    """Where in ``folder`` the adversarial picture of each file goes: no two to the same place.

    Raises FileError for a folder that would put one over an input, or over what ``save_picture`` did not write.
    """
    found: dict[Path, Path] = {}
    for picture in map(Path, pictures):
        names = itertools.chain([picture.stem], (f"{picture.stem}-{number}" for number in itertools.count(2)))
        found[picture] = next(path for name in names if (path := folder / f"{name}.png") not in found.values())
    over = {path.resolve() for path in found} & {path.resolve() for path in found.values()}
    if over:
        raise files.FileError(f"{min(over)} would be written over: choose another folder with --output.")
    others = [path for path in found.values() if path.exists() and not _is_ours(path)]
    if others:
        raise files.FileError(
            f"{others[0]} would be written over, and is not of an earlier `{_MADE_BY}`: choose another folder with"
            " --output."
        )
    return found


def _is_ours(path: Path) -> bool:
    """Whether ``save_picture`` wrote a file."""
    from PIL import Image

    try:
        with Image.open(path, formats=("PNG",)) as found:
            return found.info.get("Software") == _MADE_BY
    # Whatever another file breaks in the reader.
    except Exception:
        return False


def save_picture(x: Tensor, path: Path) -> None:
    """Write a picture (1, C, H, W) in [0, 1] as PNG, rounded to 255ths."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    values = (x[0] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    image = Image.fromarray(values[:, :, 0] if values.shape[2] == 1 else values)
    said = PngInfo()
    said.add_text("Software", _MADE_BY)
    with files.atomic(path) as temporary:
        image.save(temporary, format="PNG", pnginfo=said)


def load(path: Path) -> tuple[nn.Module, tuple[int, int, int], int]:
    """A trained model, the shape (C, H, W) of its pictures, and its number of classes; ``path`` as ``load_model``'s."""
    model = models.load_model(path)
    spec = files.read_json(saved_as(path)[1])
    channels, height, width = spec["shape"]
    return model, (channels, height, width), int(spec["num_classes"])


def class_names(path: Path, number: int) -> list[str]:
    """Names of the ``number`` classes of the model that ``load`` reads at ``path``.

    Those of the data it was trained on (of a model from elsewhere: evaluated on), if that is on record, as ``gather``
    says, and has names; else the numbers. What lies in artifacts/data may be other data.
    """
    # A file of another name was copied from its records.
    data = gather(path).data if path.is_dir() or path.name == WEIGHTS else None
    return list(map(str, (data or {}).get("classes") or range(number)))
