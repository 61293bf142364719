"""Prepared data: written once as arrays that can be memory-mapped, opened by every later stage."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor

from sglr import files
from sglr.config.sections import Data
from sglr.data import noise
from sglr.data.arrays import Array
from sglr.data.registry import SourceOptions
from sglr.data.repeats import repeated
from sglr.data.split import in_fair_order, split

FORMAT = 3
# Bytes that are selected and written at a time.
_PIECE = 2**24
ARRAYS = (
    "x_train", "true_train", "given_train", "source_train", "x_val", "true_val", "given_val", "source_val", "x_test",
    "y_test", "source_test",
)  # fmt: skip


def prepare(data: Data, folder: str | Path) -> dict[str, Any]:
    """Read the source, cut the splits, draw the label noise; write ``<array>.npy`` for ARRAYS and ``meta.json``.

    Returns what is in ``meta.json``. The same params give the same bytes. Examples keep the source's order, except
    parts that are sorted by class; ``source_train``, ``source_val`` and ``source_test`` are the positions they have
    there: the first two among the source's training images, the last among its test images. Raises FileError when the
    source cannot be read, ConfigError when sizes or noise do not fit it; nothing is written then.
    """
    root = os.environ.get("SGLR_DATA_ROOT")
    source: SourceOptions = data.source
    read = source.read(Path(root) if root else None)
    train, validation = split(
        read.y_train, train_size=data.train_size, validation_size=data.validation_size, seed=data.split_seed
    )
    train = in_fair_order(train, read.y_train, seed=data.split_seed, part="training")
    test = in_fair_order(np.arange(len(read.y_test)), read.y_test, seed=data.split_seed, part="test")
    true, given_val = read.y_train[train], read.y_train[validation]
    described = noise.describe(data.noise, source, read.num_classes, per_seed=data.noise_per_seed)
    described["validation"] = data.noisy_validation
    if read.given_train is None:
        given = noise.draw_for(true, described, read.num_classes, run_seed=None)
        if data.noisy_validation:
            given_val = noise.draw_for(given_val, described, read.num_classes, run_seed=None, validation=True)
    else:
        given = noise.of_the_data(read.given_train[train], data.noise, described)
        if data.noisy_validation:
            given_val = read.given_train[validation]
    described["flipped"] = int((given != true).sum())
    # Images are selected piece by piece while they are written: a copy of them all may not fit into memory.
    arrays = {
        "x_train": (read.x_train, train),
        "true_train": (true, None),
        "given_train": (given, None),
        "source_train": (train, None),
        "x_val": (read.x_train, validation),
        "true_val": (read.y_train, validation),
        "given_val": (given_val, None),
        "source_val": (validation, None),
        "x_test": (read.x_test, test),
        "y_test": (read.y_test, test),
        "source_test": (test, None),
    }
    folder = Path(folder)
    meta = {
        "format": FORMAT,
        "source": source.model_dump(mode="json"),
        "shape": list(read.shape),
        "num_classes": read.num_classes,
        "classes": None if read.classes is None else list(read.classes),
        "sizes": {"train": len(train), "validation": len(validation), "test": len(read.y_test)},
        "repeated": repeated(read.x_train, train, validation, read.x_test),
        "split_seed": data.split_seed,
        "noise": described,
        "arrays": {name: _write(folder / f"{name}.npy", *array) for name, array in arrays.items()},
    }
    files.write_json(folder / "meta.json", meta)
    # The folder is kept from run to run, and an earlier format had other arrays.
    for path in folder.glob("*.npy"):
        if path.stem not in arrays:
            path.unlink()
    return meta


def open_folder(folder: str | Path) -> "Prepared":
    """Open what ``prepare`` wrote. Arrays stay on disk until a split is requested; their checksums are compared then.

    Raises FileError when meta.json or an array is missing, or is not of the form that meta.json says.
    """
    folder = Path(folder)
    meta = _meta(folder / "meta.json")
    arrays = {}
    for name, stated in meta["arrays"].items():
        path = folder / f"{name}.npy"
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise files.FileError(f"cannot read {path}: {error}; run the prepare stage again.") from None
        if list(array.shape) != stated["shape"] or str(array.dtype) != stated["dtype"]:
            raise _damaged(path)
        arrays[name] = array
    return Prepared(folder, meta, arrays)


def _meta(path: Path) -> dict[str, Any]:
    """The content of meta.json; FileError when it is not what ``prepare`` writes."""
    meta = files.read_json(path)
    try:
        whole = meta["format"] == FORMAT and set(meta["arrays"]) == set(ARRAYS)
        for stated in meta["arrays"].values():
            whole = whole and isinstance(stated["shape"], list) and {"dtype", "sha256"} <= set(stated)
        whole = whole and len(meta["shape"]) == 3 and all(type(side) is int and side > 0 for side in meta["shape"])
        whole = whole and type(meta["num_classes"]) is int and meta["num_classes"] > 1
        whole = whole and (meta["classes"] is None or len(meta["classes"]) == meta["num_classes"])
        whole = whole and {"kind", "rate", "seed", "map", "per_seed", "validation"} <= set(meta["noise"])
    except (LookupError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise files.FileError(f"{path} is not of format {FORMAT}; run the prepare stage again.")
    return dict(meta)


class Prepared:
    """The opened data of an experiment."""

    def __init__(self, folder: Path, meta: dict[str, Any], arrays: dict[str, Array]) -> None:
        self.folder = folder
        self.meta = meta
        self._arrays = arrays
        self._good: set[str] = set()

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return int(self.meta["num_classes"])

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        channels, height, width = self.meta["shape"]
        return channels, height, width

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; numbers as text where the source has none."""
        return tuple(self.meta["classes"] or map(str, range(self.num_classes)))

    def train(self, seed: int, device: torch.device | str = "cpu") -> "Split":
        """The training split of the run with this seed, with noise of its own where ``data.noise_per_seed`` is true."""
        true = self._checked("true_train")
        given = self._checked("given_train")
        if self._drawn_per_seed:
            given = noise.draw_for(true, self.meta["noise"], self.num_classes, run_seed=seed)
        return _split(self._checked("x_train"), given, true, device)

    def validation(self, seed: int, device: torch.device | str = "cpu") -> "Split":
        """The validation split (may be empty) of the run with this seed; given labels are true ones unless
        ``data.noisy_validation``."""
        true = self._checked("true_val")
        given = self._checked("given_val")
        if self.meta["noise"]["validation"] and self._drawn_per_seed:
            given = noise.draw_for(true, self.meta["noise"], self.num_classes, run_seed=seed, validation=True)
        return _split(self._checked("x_val"), given, true, device)

    def test(self, device: torch.device | str = "cpu") -> "Split":
        """The test split; its labels are true."""
        return _split(self._checked("x_test"), self._checked("y_test"), self._checked("y_test"), device)

    @property
    def _drawn_per_seed(self) -> bool:
        return bool(self.meta["noise"]["per_seed"]) and self.meta["noise"]["kind"] != "none"

    def _checked(self, name: str) -> Array:
        path = self.folder / f"{name}.npy"
        if name not in self._good:
            if files.sha256(path) != self.meta["arrays"][name]["sha256"]:
                raise _damaged(path)
            self._good.add(name)
        return self._arrays[name]


@dataclass(frozen=True)
class Split:
    """Examples resident on one device.

    ``x``: (N, C, H, W), uint8 or float32 in [0, 1]. ``given``, ``true``: (N,) int64, the labels to train on and the
    right ones.
    """

    x: Tensor
    given: Tensor
    true: Tensor

    def __len__(self) -> int:
        return len(self.given)

    @property
    def noisy(self) -> Tensor:
        """(N,) bool: the given label is not the true one."""
        return self.given != self.true

    def to(self, device: torch.device | str) -> "Split":
        """The same examples on a device."""
        return Split(self.x.to(device), self.given.to(device), self.true.to(device))

    def first(self, n: int) -> "Split":
        """The first n examples."""
        return Split(self.x[:n], self.given[:n], self.true[:n])

    def images(self, index: Tensor | slice | None = None) -> Tensor:
        """Images (n, C, H, W) as float32 in [0, 1]; all of them, or those of an index tensor or slice."""
        chosen = self.x if index is None else self.x[index]
        return chosen.to(torch.float32).div_(255) if chosen.dtype == torch.uint8 else chosen


@dataclass(frozen=True)
class Images:
    """The first ``n`` images of a split, converted to float32 in [0, 1] only on access, by slices ``[a:b]``."""

    split: Split
    n: int

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, part: slice) -> Tensor:
        start, stop, _ = part.indices(self.n)
        return self.split.images(slice(start, stop))


def _split(x: Array, given: Array, true: Array, device: torch.device | str) -> Split:
    # Copies: the maps are read-only, and training must not depend on files staying where they are.
    return Split(*(torch.from_numpy(np.array(array)).to(device) for array in (x, given, true)))


def _write(path: Path, array: Array, index: Array | None) -> dict[str, Any]:
    """Write array, or array[index], as np.save does, in pieces."""
    shape = (len(array) if index is None else len(index), *array.shape[1:])
    header = {"descr": npy.dtype_to_descr(array.dtype), "fortran_order": False, "shape": shape}
    rows = max(1, _PIECE // max(1, array[:1].nbytes))
    with files.atomic(path) as temporary, temporary.open("wb") as file:
        npy.write_array_header_1_0(file, header)
        for start in range(0, shape[0], rows):
            part = slice(start, start + rows)
            file.write(np.ascontiguousarray(array[part if index is None else index[part]]).data)
    return {"sha256": files.sha256(path), "shape": list(shape), "dtype": str(array.dtype)}


def _damaged(path: Path) -> files.FileError:
    return files.FileError(f"{path} is damaged: it does not match meta.json; run the prepare stage again.")
