"""Image files for and from a model: read as a viewer shows them, written as PNG."""

import itertools
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from sglr import files
from sglr.data.decoding import decoded

# What PNG files written here say under "Software".
_MADE_BY = "sglr predict --attack"


def read_image(path: Path, shape: tuple[int, int, int]) -> tuple[Tensor, str]:
    """An image file as (1, C, H, W) in [0, 1] for a model of images ``shape``, and what was done to it, in words.

    As ``sglr.data.decoding.decoded`` reads it. FileError, too, for a model whose images have neither 1 nor 3 channels.
    """
    channels, *size = shape
    if channels not in (1, 3):
        raise files.FileError(f"the model takes images of {channels} channels: image files have 1 or 3.")
    values, done = decoded(path, channels, (size[0], size[1]))
    return torch.from_numpy(values).float().div(255)[None], done


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
