"""Source ``folders``: image files, in a folder for each class."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from sglr.data.arrays import Array, Arrays
from sglr.data.decoding import SUFFIXES, decoded
from sglr.data.npz import find
from sglr.data.registry import REGISTRY, SourceOptions
from sglr.files import FileError

# Tiny-ImageNet's: a line for each of its validation images, file and class first.
_ANNOTATIONS = "val_annotations.txt"
_Named = list[tuple[Path, int]]


@REGISTRY.register("folders")
class FoldersOptions(SourceOptions):
    """A folder, absolute or relative to the project or to the folder SGLR_DATA_ROOT, with ``train`` and ``test`` in it.

    In each of these is a folder per class with its images (PNG, JPEG, BMP, GIF, PPM, TIFF, WebP; in folders within it,
    too). Classes are numbered in the order of their names. ``test`` names another folder of test images, such as val;
    one that holds val_annotations.txt is read as Tiny-ImageNet's. ``channels``: 3, or 1 for grey. ``size``: side in
    pixels to which images are scaled, as by ``sglr predict``; null: all are of one size. They must fit into memory, a
    byte a value.
    """

    packages: ClassVar[tuple[str, ...]] = ("pillow",)
    path: Annotated[str, Field(min_length=1)]
    test: Annotated[str, Field(min_length=1)] = "test"
    channels: Literal[1, 3] = 3
    size: Annotated[int, Field(ge=1, le=4096)] | None = None

    def read(self, root: Path | None) -> Arrays:
        folder = self._folder(root)
        names = _classes(folder / "train")
        train = _images_of(folder / "train", names)
        annotations = folder / self.test / _ANNOTATIONS
        test = _annotated(annotations, names) if annotations.is_file() else _images_of(folder / self.test, names)
        shape = (self.size, self.size) if self.size is not None else _size_of(train[0][0], self.channels)
        parts = (self._decoded(part, shape) for part in (train, test))
        (x_train, y_train), (x_test, y_test) = parts
        return Arrays(x_train, y_train, x_test, y_test, len(names), tuple(names)).checked(str(folder))

    def look(self, root: Path | None) -> tuple[bool, str]:
        return True, f"folders in {self._folder(root)}"

    def _folder(self, root: Path | None) -> Path:
        folder = find(self.path, root, "data.source.path", folder=True)
        for part in ("train", self.test):
            if not (folder / part).is_dir():
                raise FileError(
                    f"data.source.path: there is no folder {part} in {folder.absolute()}, of which train and"
                    f" {self.test} are needed (data.source.test names another one for the test images)."
                )
        return folder

    def _decoded(self, named: _Named, shape: tuple[int, int]) -> tuple[Array, Array]:
        images = np.empty((len(named), self.channels, *shape), dtype=np.uint8)
        for place, (path, _) in enumerate(named):
            image, _ = decoded(path, self.channels, None if self.size is None else shape)
            if image.shape[1:] != shape:
                raise FileError(
                    f"{path} has {image.shape[2]}x{image.shape[1]} pixels, others {shape[1]}x{shape[0]}:"
                    " data.source.size scales all to one size."
                )
            images[place] = image
        return images, np.array([label for _, label in named], dtype=np.int64)


def _classes(part: Path) -> list[str]:
    names = sorted(folder.name for folder in part.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    if len(names) < 2:
        raise FileError(f"{part}: a folder for each class is needed, and two classes at least; found {len(names)}.")
    return names


def _images_of(part: Path, names: list[str]) -> _Named:
    """The image files of each class, in the order of classes and names; FileError for a class without any, and for one
    that is not among ``names``."""
    if unknown := sorted(set(_classes(part)) - set(names)):
        raise FileError(f"{part}: the class {unknown[0]} has no folder among the training images.")
    found: _Named = []
    for label, name in enumerate(names):
        images = sorted(path for path in (part / name).rglob("*") if path.suffix.lower() in SUFFIXES and _shown(path))
        if not images:
            raise FileError(f"{part / name}: there is no image ({', '.join(sorted(SUFFIXES))}).")
        found += [(path, label) for path in images]
    return found


def _shown(path: Path) -> bool:
    """Not one of the files that systems keep beside others (._1.png)."""
    return not path.name.startswith(".") and path.is_file()


def _annotated(annotations: Path, names: list[str]) -> _Named:
    """Tiny-ImageNet's validation images, in the order of their names."""
    labels = {name: label for label, name in enumerate(names)}
    found: _Named = []
    for number, line in enumerate(annotations.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        image, _, rest = line.partition("\t")
        path, label = annotations.parent / "images" / image, labels.get(rest.partition("\t")[0])
        if label is None or "/" in image or not path.is_file():
            raise FileError(f"{annotations}, line {number}: {line[:80]!r} is not an image in images/ and a class.")
        found.append((path, label))
    return sorted(found)


def _size_of(path: Path, channels: int) -> tuple[int, int]:
    image, _ = decoded(path, channels)
    return image.shape[1], image.shape[2]
