"""Source ``folders``: image files, in a folder for each class."""

import os
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from sglr.data.arrays import Array, Arrays
from sglr.data.decoding import SUFFIXES, decoded
from sglr.data.locating import find, require_watched
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
        try:
            return self._read(folder)
        except OSError as error:
            raise FileError(f"cannot read the images in {folder}: {error}") from None
        except MemoryError as error:
            raise FileError(
                f"the images in {folder} do not fit into memory ({error}): make them smaller (data.source.size), or"
                " fewer."
            ) from None

    def _read(self, folder: Path) -> Arrays:
        names = _classes(folder / "train")
        train = _images_of(folder / "train", names)
        annotations = folder / self.test / _ANNOTATIONS
        test = _annotated(annotations, names) if annotations.is_file() else _images_of(folder / self.test, names)
        shape = (self.size, self.size) if self.size is not None else _size_of(train[0][0], self.channels)
        (x_train, y_train), (x_test, y_test) = (self._decoded(part, shape) for part in (train, test))
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
    require_watched(part, "data.source.path")
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
        images = _images_in(part / name)
        if not images:
            raise FileError(f"{part / name}: there is no image ({', '.join(sorted(SUFFIXES))}).")
        found += [(path, label) for path in images]
    return found


def _images_in(folder: Path) -> list[Path]:
    """The image files in a folder and those within it, but for what systems and programs keep beside them (``._1.png``,
    ``.thumbnails``). OSError for a folder that cannot be read, FileError for a link to a folder or to nothing."""
    require_watched(folder, "data.source.path")
    images: list[Path] = []

    def stop(error: OSError) -> None:
        raise error

    for inside, folders, files in os.walk(folder, onerror=stop):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if linked := [name for name in folders if Path(inside, name).is_symlink()]:
            raise FileError(f"{Path(inside, linked[0])} is a link to a folder: put the images themselves there.")
        images += [Path(inside, name) for name in files if _is_image(name)]
    if missing := [path for path in images if not path.exists()]:
        raise FileError(f"{missing[0]} is a link to nothing: its file has not been fetched, or was moved.")
    return sorted(images)


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")


def _annotated(annotations: Path, names: list[str]) -> _Named:
    """Tiny-ImageNet's validation images, in the order of their names."""
    folder, labels = annotations.parent / "images", {name: label for label, name in enumerate(names)}
    images = {path.name: path for path in _images_in(folder) if path.parent == folder}
    found: dict[Path, int] = {}
    for number, line in enumerate(annotations.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        image, _, rest = line.partition("\t")
        path, label = images.get(image), labels.get(rest.partition("\t")[0])
        if path is None or label is None or path in found:
            said = "names an image a second time" if path in found else "is not an image in images/ and a class"
            raise FileError(f"{annotations}, line {number}: {line[:80]!r} {said}.")
        found[path] = label
    if unnamed := sorted(set(images.values()) - set(found)):
        raise FileError(f"{annotations} has no line for {unnamed[0].name}, which is in images/.")
    return sorted(found.items())


def _size_of(path: Path, channels: int) -> tuple[int, int]:
    image, _ = decoded(path, channels)
    return image.shape[1], image.shape[2]
