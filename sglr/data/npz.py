"""Source ``npz``: your own arrays in one NumPy archive."""

import os
import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.lib import format as npy
from pydantic import Field

from sglr.config.wording import some
from sglr.data.arrays import Array, Arrays, as_images, as_labels, check_labels
from sglr.data.locating import find
from sglr.data.registry import REGISTRY, SourceOptions
from sglr.files import FileError, require_honest

_PIECE = 2**20
NAMES = ("x_train", "y_train", "x_test", "y_test")
GIVEN = "given_train"
CLASSES = "classes"


@REGISTRY.register("npz")
class NpzOptions(SourceOptions):
    """Path of the archive, absolute or relative to the project or to the folder SGLR_DATA_ROOT.

    It holds ``x_train``, ``y_train``, ``x_test`` and ``y_test``. Images are uint8, or floating point in [0, 1], with
    axes (N, C, H, W) or (N, H, W, C): channels are last when the last axis has length 1 or 3 and the second has not.
    Labels are whole numbers from 0 to C - 1, each of which occurs in y_train. Where some of the labels to train on are
    wrong and the right ones are known, ``given_train`` holds the former and ``y_train`` the latter. ``classes`` may
    hold the C names of the classes.
    """

    path: Annotated[str, Field(min_length=1)]

    def read(self, root: Path | None) -> Arrays:
        path = find(self.path, root, "data.source.path")
        found = read_npz(path, NAMES, optional=(GIVEN, CLASSES))
        check_labels(found["y_train"], f"{path}: y_train")
        labels = np.unique(found["y_train"])
        if len(labels) < 2 or labels[-1] != len(labels) - 1:
            shown = some(list(map(str, labels)), 10)
            raise FileError(
                f"{path}: y_train holds the labels {shown}; at least two, numbered from 0 without gaps, are needed."
            )
        x_train, y_train, x_test, y_test = (found[name] for name in NAMES)
        classes = _class_names(found[CLASSES], path) if CLASSES in found else None
        arrays = Arrays(x_train, y_train, x_test, y_test, len(labels), classes, given_train=found.get(GIVEN))
        return arrays.checked(str(path))

    def look(self, root: Path | None) -> tuple[bool, str]:
        return True, f"npz {find(self.path, root, 'data.source.path')}"


def _class_names(names: Array, path: Path) -> tuple[str, ...]:
    """The names as text; FileError unless they are different texts in one row."""
    found = tuple(map(str, names.tolist())) if names.ndim == 1 else ()
    if names.dtype.kind != "U" or not all(found) or len(set(found)) != names.size:
        raise FileError(f"{path}: {CLASSES} must hold one name per class, each another text, found {names!r}.")
    return found


def read_npz(path: Path, needed: Sequence[str], optional: Sequence[str] | None = None) -> dict[str, Array]:
    """Images (``x_...``) and labels of an archive, in the forms that ``Arrays`` has, not checked yet.

    ``optional``: names besides the needed ones; any other is refused. None: any other is ignored. Raises FileError
    that says which are missing, unreadable or unusable. Pickled objects are never loaded.
    """
    require_honest(path)
    try:
        archive = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, MemoryError, RuntimeError, zipfile.BadZipFile) as error:
        said = "it is not one" if "allow_pickle" in str(error) else error
        raise FileError(f"cannot read {path} as an .npz archive: {said}") from None
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise FileError(f"{path} holds a single array; an .npz archive with {', '.join(needed)} is needed (np.savez).")
    with archive:
        missing = [name for name in needed if name not in archive.files]
        if missing:
            held = f"it holds {', '.join(archive.files)}" if archive.files else "it is empty"
            raise FileError(f"{path}: missing {', '.join(missing)} ({held}).")
        used = (*needed, *(optional or ()))
        unknown = [name for name in archive.files if name not in used]
        if unknown and optional is not None:
            raise FileError(f"{path}: {', '.join(unknown)} would not be used; only {', '.join(used)} are.")
        arrays = {}
        for name in (name for name in archive.files if name in used):
            try:
                arrays[name] = (as_images if name[0] == "x" else as_labels)(_mapped(path, archive, name))
            # RuntimeError: encrypted, or compressed in a way that zipfile does not know.
            except (OSError, ValueError, EOFError, MemoryError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
                raise FileError(f"{path}: cannot read {name}: {error}") from None
    return arrays


def _mapped(path: Path, archive: np.lib.npyio.NpzFile, name: str) -> Array:
    """An array of the archive: mapped where it is stored as it is (np.savez), read where it is compressed.

    Its checksum, which only reading it through would compare, is compared in either case.
    """
    assert archive.zip is not None
    member = archive.zip.getinfo(f"{name}.npy" if f"{name}.npy" in archive.zip.namelist() else name)
    if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
        return np.asarray(archive[name])
    with archive.zip.open(member) as content:
        while content.read(_PIECE):
            pass
    with path.open("rb") as file:
        file.seek(member.header_offset)
        *_, name_length, extra_length = struct.unpack("<4s5H3I2H", file.read(30))
        file.seek(name_length + extra_length, os.SEEK_CUR)
        if npy.read_magic(file) != (1, 0):
            return np.asarray(archive[name])
        shape, fortran, dtype = npy.read_array_header_1_0(file)
        offset = file.tell()
    if dtype.hasobject or 0 in shape or not shape:
        return np.asarray(archive[name])
    return np.memmap(path, dtype, "r", offset, shape, "F" if fortran else "C")
