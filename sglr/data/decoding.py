"""Image files, decoded as a viewer shows them."""

import struct
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sglr import files
from sglr.data.arrays import Array

if TYPE_CHECKING:
    from PIL import Image

# Others have readers that start programs (EPS) or are rarely tested with hostile files.
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp"))
# Decoded, an image takes up to sixteen bytes for each: this many are a gigabyte.
_MOST_PIXELS = 2**26
# What undoes the orientations 2 to 8 of EXIF, by Pillow's names.
_TURNS = ("FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_270", "TRANSVERSE", "ROTATE_90")


def decoded(path: Path, channels: int, size: tuple[int, int] | None = None) -> tuple[Array, str]:
    """An image file as uint8 (channels, H, W), and what was done to it, in words.

    As a viewer shows it, transparent parts over white; grey (one channel) or colour (three); where ``size`` is given
    (H, W), scaled to it (bilinear) if it has another. FileError when it is not an image, or its range of values is
    unknown.
    """
    from PIL import Image, UnidentifiedImageError

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
    if size is not None and image.size != size[::-1]:
        done.append(f"resized from {image.width}x{image.height} to {size[1]}x{size[0]}")
        image = image.resize(size[::-1], Image.Resampling.BILINEAR)
    values = np.asarray(image, dtype=np.uint8).reshape(image.height, image.width, channels)
    return values.transpose(2, 0, 1).copy(), ", ".join(done)


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
    # Pillow gives 16 bits of grey in PNG and PPM as 32.
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
