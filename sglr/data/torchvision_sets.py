"""Sources ``cifar10``, ``cifar100`` and ``svhn``: the official files, read by torchvision.

Files already in SGLR_DATA_ROOT (or .sglr/data) are used; otherwise they are downloaded; where neither is possible, the
error says which file to put where. torchvision unpickles the CIFAR files, but only those whose MD5 is the official one.
"""

import contextlib
import dataclasses
import http.client
import socket
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from sglr.data import class_maps
from sglr.data.arrays import Array, Arrays, check_labels
from sglr.data.locating import find
from sglr.data.npz import read_npz
from sglr.data.registry import REGISTRY, SourceOptions
from sglr.files import FileError

DEFAULT_ROOT = Path(".sglr/data")
# A network that drops packets would otherwise block the stage for minutes.
TIMEOUT = 30.0


@dataclass(frozen=True)
class Download:
    """One official file, and the data files (path in the root, MD5) that are in it, or are it."""

    filename: str
    url: str
    md5: str
    contents: tuple[tuple[str, str], ...]


@REGISTRY.register("cifar10", "cifar100", "svhn")
class TorchvisionOptions(SourceOptions):
    """Images are uint8 (N, 3, 32, 32), train and test parts the official ones.

    ``given``: path of an .npz archive with labels to train on that people gave and may be wrong, such as CIFAR-10N's
    (Wei et al. 2022), absolute or relative as an npz source's. It holds ``given`` and ``clean``, both (N,) in the order
    of the official training images; ``clean`` must be the official labels, by which another order is noticed.
    """

    given: Annotated[str, Field(min_length=1)] | None = None

    packages: ClassVar[tuple[str, ...]] = ("torchvision",)
    asymmetric_maps: ClassVar[dict[str, dict[int, int]]] = {
        "cifar10": class_maps.CIFAR10,
        "cifar100": class_maps.CIFAR100,
    }

    def training_examples(self) -> int:
        return 73257 if self.name == "svhn" else 50000

    def test_examples(self) -> int:
        return 26032 if self.name == "svhn" else 10000

    def classes_and_shape(self) -> tuple[int, tuple[int, int, int]]:
        return 100 if self.name == "cifar100" else 10, (3, 32, 32)

    def look(self, root: Path | None) -> tuple[bool, str]:
        asked, root = root, DEFAULT_ROOT if root is None else root
        there = all(
            (root / wanted.filename).is_file() or all((root / name).is_file() for name, _ in wanted.contents)
            for wanted in _downloads(self.name)
        )
        if self.given is not None:
            find(self.given, asked, "data.source.given")
        return there, f"{self.name} in {root}" if there else f"{self.name} will be downloaded into {root}"

    def read(self, root: Path | None) -> Arrays:
        given = None if self.given is None else find(self.given, root, "data.source.given")
        root = DEFAULT_ROOT if root is None else root
        for download in _downloads(self.name):
            _provide(download, root)
        arrays = _read(self.name, root).checked(f"{self.name} in {root}")
        if given is None:
            return arrays
        labels = _given(given, arrays.y_train, self.name)
        return dataclasses.replace(arrays, given_train=labels).checked(str(given))


def _given(path: Path, official: Array, name: str) -> Array:
    """The given labels (N,) of an archive that states the official ones (N,) beside them; FileError if it does not."""
    found = read_npz(path, ("given", "clean"), optional=())
    check_labels(found["clean"], f"{path}: clean")
    if not np.array_equal(found["clean"], official):
        same = (found["clean"] == official).mean() if found["clean"].shape == official.shape else 0.0
        raise FileError(
            f"{path}: clean holds {len(found['clean'])} labels, of which {same:.0%} are those of the {len(official)}"
            f" training images of {name} in the order of the official files: the given labels would belong to other"
            " images. Use the labels in the order that torchvision reads."
        )
    return found["given"]


def _downloads(name: str) -> list[Download]:
    """The files a source needs, with the checksums that torchvision states."""
    from torchvision import datasets

    if name == "svhn":
        entries = [datasets.SVHN.split_list[part] for part in ("train", "test")]
        return [Download(filename, url, md5, ((filename, md5),)) for url, filename, md5 in entries]
    kind = datasets.CIFAR10 if name == "cifar10" else datasets.CIFAR100
    members = [*kind.train_list, *kind.test_list, [kind.meta["filename"], kind.meta["md5"]]]
    contents = tuple((f"{kind.base_folder}/{member}", md5) for member, md5 in members)
    return [Download(kind.filename, kind.url, kind.tgz_md5, contents)]


def _provide(wanted: Download, root: Path) -> None:
    """Ensure that the data files of one download are in ``root``, with the right checksums, or raise FileError."""
    from torchvision.datasets.utils import check_integrity, extract_archive

    def lacking() -> list[str]:
        return [name for name, md5 in wanted.contents if not check_integrity(root / name, md5)]

    if not lacking():
        return
    archive = root / wanted.filename
    if not archive.is_file():
        _fetch(wanted, root, damaged=[name for name in lacking() if (root / name).exists()])
    elif not check_integrity(archive, wanted.md5):
        raise FileError(
            f"{archive} is damaged or incomplete: its MD5 is not {wanted.md5}. Delete it, and it is downloaded again,"
            f" or replace it by a good copy of {wanted.url}."
        )
    if not lacking():
        return
    try:
        extract_archive(archive, root)
    except (OSError, EOFError, tarfile.TarError) as error:
        raise FileError(f"cannot unpack {archive}: {error}") from None
    if lacking():
        raise FileError(f"{archive} was unpacked, but these files are not the official ones: {', '.join(lacking())}.")


def _fetch(wanted: Download, root: Path, damaged: list[str]) -> None:
    """Download into a temporary folder first, so that an interrupted download leaves no half file under the name."""
    from torchvision.datasets import utils

    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root, prefix=".download-") as folder, _socket_timeout(TIMEOUT):
            utils.download_url(wanted.url, folder, wanted.filename, wanted.md5)
            (Path(folder) / wanted.filename).replace(root / wanted.filename)
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        found = f"its files {', '.join(damaged)} are there but damaged" if damaged else "its files are not there"
        raise FileError(
            f"{wanted.filename} is not in {root.absolute()}, {found}, and it could not be downloaded ({error})."
            f" Download {wanted.url} (MD5 {wanted.md5}) on a machine with a network and put it into that folder,"
            " or set SGLR_DATA_ROOT to the folder that holds it."
        ) from None


@contextlib.contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _read(name: str, root: Path) -> Arrays:
    from torchvision import datasets

    if name == "svhn":
        parts: list[Any] = [datasets.SVHN(root, split=part) for part in ("train", "test")]
        (x_train, y_train), (x_test, y_test) = ((part.data, part.labels) for part in parts)
        classes = tuple(str(digit) for digit in range(10))
    else:
        kind = datasets.CIFAR10 if name == "cifar10" else datasets.CIFAR100
        parts = [kind(root, train=train) for train in (True, False)]
        (x_train, y_train), (x_test, y_test) = ((part.data.transpose(0, 3, 1, 2), part.targets) for part in parts)
        classes = tuple(parts[0].classes)
    x_train, x_test = np.ascontiguousarray(x_train), np.ascontiguousarray(x_test)
    y_train, y_test = np.asarray(y_train, dtype=np.int64), np.asarray(y_test, dtype=np.int64)
    return Arrays(x_train, y_train, x_test, y_test, len(classes), classes)
