"""Image files, read as a viewer shows them and written as PNG."""

import itertools
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from sglr import files

if TYPE_CHECKING:
    from PIL import Image

# Others have readers that start programs (EPS) or are rarely tested with hostile files.
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
# Decoded, an image takes up to sixteen bytes for each: this many are a gigabyte.
_MOST_PIXELS = 2**26
# What undoes the orientations 2 to 8 of EXIF, by Pillow's names.
_TURNS = ("FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_270", "TRANSVERSE", "ROTATE_90")
# What PNG files written here say under "Software".
_MADE_BY = "sglr predict --attack"


def read_image(path: Path, shape: tuple[int, int, int]) -> tuple[Tensor, str]:
    """An image file as (1, C, H, W) in [0, 1] for a model of images ``shape``, and what was done to it, in words.

    As a viewer shows it, transparent parts over white; grey or colour as the model wants it; resized (bilinear) where
    the size differs. FileError when it is not an image, or its range of values is unknown.
    """
    from PIL import Image, UnidentifiedImageError

    channels, height, width = shape
    if channels not in (1, 3):
        raise files.FileError(f"the model takes images of {channels} channels: image files have 1 or 3.")
    try:
        with Image.open(path, formats=_FORMATS) as found:
            if found.width * found.height > _MOST_PIXELS:
                raise files.FileError(
                    f"{path} has {found.width}x{found.height} pixels; up to {_MOST_PIXELS:,} are read. Make it smaller."
                )
            image, done = _as_shown(found, path)
            image = image.convert("L" if channels == 1 else "RGB")
    # For a broken PNG, Pillow raises SyntaxError; a damaged one of another format breaks its reader in other ways.
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError, LookupError, EOFError, struct.error, MemoryError,
            Image.DecompressionBombError) as error:  # fmt: skip
        raise files.FileError(f"cannot read {path} as an image: {error}") from None
    if image.size != (width, height):
        done.append(f"resized from {image.width}x{image.height} to {width}x{height}")
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    values = np.asarray(image, dtype=np.uint8).reshape(height, width, channels).transpose(2, 0, 1)
    return torch.from_numpy(values.copy()).float().div(255)[None], ", ".join(done)


def _as_shown(found: "Image.Image", path: Path) -> "tuple[Image.Image, list[str]]":
    """An image as a viewer shows it, with 8 bits a value, and what was done to it, in words; FileError: see above."""
    from PIL import ExifTags, Image

    done = ["its first image only"] if getattr(found, "is_animated", False) else []
    # Pillow scales grey of 2 and 4 bits to 8, and not the level that is transparent. Known until it is loaded.
    packed = [part.args for part in getattr(found, "tile", ())]
    scale = 85 if "L;2" in packed else 17 if "L;4" in packed else 1
    # Not by ImageOps.exif_transpose, which ends in a TypeError and the like where other EXIF data are odd.
    orientation = found.getexif().get(ExifTags.Base.Orientation)
    turn = next((name for number, name in enumerate(_TURNS, 2) if number == orientation), None)
    found.load()
    if isinstance(found.info.get("transparency"), int):
        found.info["transparency"] *= scale
    image = found
    if turn is not None:
        done.append("oriented by its EXIF data")
        if found.format != "TIFF":  # Pillow turns these itself
            image = found.transpose(Image.Transpose[turn])
    # Of PNG and PPM, Pillow has 16 bits of grey as 32.
    if image.mode.startswith("I;16") or (image.mode == "I" and found.format in ("PNG", "PPM")):
        image = _in_8_bits(image)
    if image.mode in ("I", "F"):
        raise files.FileError(
            f"{path} has grey values of 32 bits or with a sign, and their white level is unknown: save it with 8 or"
            " 16 bits."
        )
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
        if alpha.getextrema() != (255, 255):
            done.append("transparent parts over white")
            seen = Image.new("RGB", image.size, "white")
            seen.paste(image, mask=alpha)
            image = seen
    return image, done


def _in_8_bits(image: "Image.Image") -> "Image.Image":
    """An image with 16 bits of grey, 65535 being white, rounded to 8; a level that is transparent stays so."""
    from PIL import Image

    values = np.asarray(image)
    rounded = Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))
    if "transparency" in image.info:
        rounded.putalpha(Image.fromarray(np.where(values == image.info["transparency"], 0, 255).astype(np.uint8)))
    return rounded


def targets(images: Iterable[str], folder: Path) -> dict[Path, Path]:
    """Where in ``folder`` the adversarial image of each file goes: no two to the same place.

    Raises FileError if one would overwrite an input, or a file that ``save_image`` did not write.
    """
    found: dict[Path, Path] = {}
    for image in map(Path, images):
        names = itertools.chain([image.stem], (f"{image.stem}-{number}" for number in itertools.count(2)))
        found[image] = next(path for name in names if (path := folder / f"{name}.png") not in found.values())
    over = {path.resolve() for path in found} & {path.resolve() for path in found.values()}
    if over:
        raise files.FileError(f"{min(over)} would be overwritten: choose another folder with --output.")
    others = [path for path in found.values() if path.exists() and not _is_ours(path)]
    if others:
        raise files.FileError(
            f"{others[0]} would be overwritten, and is not from an earlier `{_MADE_BY}`: choose another folder with"
            " --output."
        )
    return found


def _is_ours(path: Path) -> bool:
    """Whether ``save_image`` wrote a file."""
    from PIL import Image

    try:
        with Image.open(path, formats=("PNG",)) as found:
            return found.info.get("Software") == _MADE_BY
    # Whatever another file breaks in the reader.
    except Exception:
        return False


def save_image(x: Tensor, path: Path) -> None:
    """Write an image (1, C, H, W) in [0, 1] as PNG, rounded to 255ths."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    values = (x[0] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    image = Image.fromarray(values[:, :, 0] if values.shape[2] == 1 else values)
    said = PngInfo()
    said.add_text("Software", _MADE_BY)
    with files.atomic(path) as temporary:
        image.save(temporary, format="PNG", pnginfo=said)
