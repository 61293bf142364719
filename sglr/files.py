"""Files that are whole or absent: atomic writes, checksums, nested state as safetensors, locks."""

import contextlib
import hashlib
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import torch


# Compressed pictures shrink to a half, labels to a twentieth; what unfolds to more than this is made to fill memory.
_MOST_UNFOLDING = 100
_NEVER_TOO_MUCH = 2**28
# Read once, here: reading the mask means setting it for a moment, which would meet the writes of another thread.
_UMASK = os.umask(0)
os.umask(_UMASK)


class FileError(RuntimeError):
    """A file that is missing, damaged or cannot be written; the message names it and says what to do."""


class DamagedError(FileError):
    """A file that was read and is not what was written."""


@contextlib.contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that takes its place when the block ends without an error.

    The bytes are on disk before the name is. On any error the temporary file goes and ``path`` stays as it was; an
    OSError (full disk, no permission) becomes a FileError.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_UMASK)
        temporary.replace(path)
        temporary = None
    except OSError as error:
        # NumPy counts what a full disk took and does not say why it was not more.
        reason = error.strerror or f"{error}; the disk is probably full"
        raise FileError(f"cannot write {path}: {reason}. What was there before is unchanged.") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_bytes(path: str | Path, payload: bytes) -> None:
    """Write ``payload`` to ``path`` atomically."""
    with atomic(path) as temporary:
        temporary.write_bytes(payload)


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 ``text`` to ``path`` atomically."""
    write_bytes(path, text.encode())


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as indented JSON with a final newline; NaN and infinity are refused."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """The value in a JSON file; FileError when it is missing or damaged."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise FileError(f"cannot read {path}: {error}") from None


def write_rows(path: str | Path, rows: list[dict[str, Any]]) -> None:
    """Write rows as CSV; columns in order of first appearance, absent and None values empty, floats exactly."""
    import csv
    import io

    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def read_rows(path: str | Path) -> list[dict[str, Any]]:
    """Rows of a CSV written by ``write_rows``: numbers as int or float, empty cells as None."""
    import csv

    def value(cell: str) -> Any:
        if cell == "":
            return None
        for kind in (int, float):
            with contextlib.suppress(ValueError):
                return kind(cell)
        return cell

    try:
        with Path(path).open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise FileError(f"cannot read {path}: {error}") from None
    for number, row in enumerate(rows, 1):
        if None in row or None in row.values():
            raise FileError(f"cannot read {path}: row {number} has not one cell for each column")
    return [{key: value(cell) for key, cell in row.items()} for row in rows]


def write_arrays(path: str | Path, arrays: "dict[str, np.ndarray]") -> None:
    """Write named arrays as an uncompressed .npz; equal arrays give equal bytes, whichever Python writes them."""
    import zipfile

    import numpy as np

    with atomic(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy")
            # Decides on the header, which numpy.savez leaves to the version of Python.
            member.file_size = array.nbytes
            with archive.open(member, "w") as file:
                np.lib.format.write_array(file, array, allow_pickle=False)


def require_honest(path: str | Path) -> None:
    """FileError for an .npz that would fill the memory: one that unfolds to far more than its size, or in which an
    array's header claims more bytes than there are. Only its directory and headers are read; the rest is not judged.
    """
    import zipfile
    import zlib

    from numpy.lib import format as npy

    try:
        size = Path(path).stat().st_size
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            unfolded = sum(member.file_size for member in members)
            if unfolded > max(_MOST_UNFOLDING * size, _NEVER_TOO_MUCH):
                raise FileError(f"cannot read {path}: its {size:,} bytes unfold to {unfolded:,}; it is refused.")
            for member in members:
                with archive.open(member) as file:
                    version = npy.read_magic(file)
                    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
                    shape, _, dtype = read(file)
                claimed = math.prod(shape) * dtype.itemsize
                if claimed > member.file_size and not dtype.hasobject:
                    name = member.filename.removesuffix(".npy")
                    raise FileError(
                        f"cannot read {path}: {name} claims {claimed:,} bytes, {member.file_size:,} are there; it is"
                        " refused."
                    )
    except FileError:
        raise
    except (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error):
        return  # damaged, or no archive at all: whoever reads it says so


def read_arrays(path: str | Path) -> "dict[str, np.ndarray]":
    """The named arrays of an .npz; FileError when it is missing or damaged. Nothing is unpickled."""
    import zipfile
    import zlib

    import numpy as np

    require_honest(path)
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    # Of an archive that is compressed in another way or encrypted, zipfile says NotImplementedError or RuntimeError.
    except (
        OSError,
        ValueError,
        EOFError,
        AttributeError,
        MemoryError,
        RuntimeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise FileError(f"cannot read {path}: {error}") from None
    foreign = [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]
    if foreign:
        raise FileError(f"cannot read {path}: {foreign[0]!r} in it is not an array")
    return arrays


def digest(*paths: str | Path) -> str:
    """SHA-256 over the contents of files and, recursively and in name order, of folders (bytecode left out)."""
    total = hashlib.sha256()
    for path in map(Path, paths):
        members = sorted(path.rglob("*")) if path.is_dir() else [path]
        for member in members:
            if member.is_file() and "__pycache__" not in member.parts:
                total.update(str(member.relative_to(path)).encode())
                with member.open("rb") as file:
                    total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def md5(path: str | Path) -> str:
    """MD5 of one file, as DVC records it."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def dvc_digest(path: str | Path, md5: Callable[[Path], str] = md5) -> str | None:
    """What DVC records for a file (its MD5) or a folder (the MD5 of a listing of its files); None for neither.

    What .dvcignore leaves out of folders (bytecode, .gitignore) is left out. ``md5`` is asked for each file, by default
    the function of this name: whoever looks at many folders may give one that remembers.
    """
    path = Path(path)
    if path.is_file():
        return md5(path)
    if not path.is_dir():
        return None
    members = {
        member.relative_to(path).as_posix(): member
        for member in path.rglob("*")
        if member.is_file() and not _ignored_by_dvc(member.relative_to(path))
    }
    # In the order of the names as texts: b.txt before b/x.txt.
    listing = [{"md5": md5(members[name]), "relpath": name} for name in sorted(members)]
    return hashlib.md5(json.dumps(listing, sort_keys=True).encode()).hexdigest() + ".dir"


def _ignored_by_dvc(path: Path) -> bool:
    return "__pycache__" in path.parts or path.suffix == ".pyc" or path.name == ".gitignore"


def save_state(path: str | Path, state: dict[str, Any]) -> None:
    """Write nested state (dicts, lists, tuples, tensors, plain values) as one checksummed file.

    Layout: SHA-256 of the rest (32 bytes), then a safetensors file whose metadata holds everything but the tensors as
    JSON. Nothing in it can run code when read.
    """
    from safetensors.torch import save

    tensors: dict[str, torch.Tensor] = {}
    plain = json.dumps(_pack(state, tensors))
    payload = save(tensors, metadata={"state": plain})
    write_bytes(path, hashlib.sha256(payload).digest() + payload)


def load_state(path: str | Path, device: "torch.device | str" = "cpu") -> dict[str, Any]:
    """Read what ``save_state`` wrote; FileError when it cannot be read, DamagedError when it is another."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise FileError(f"cannot read {path}: {error}") from None
    payload = content[32:]
    if hashlib.sha256(payload).digest() != content[:32]:
        raise DamagedError(f"{path} is damaged (its checksum does not match); delete it to go on without it.")
    try:
        tensors = {name: tensor.to(device) for name, tensor in load(payload).items()}
        header = json.loads(payload[8 : 8 + int.from_bytes(payload[:8], "little")])
        state = _unpack(json.loads(header["__metadata__"]["state"]), tensors)
    # The checksum is right, and yet save_state did not write it.
    except (SafetensorError, LookupError, ValueError, TypeError, RecursionError) as error:
        raise DamagedError(f"{path} is damaged (it is no state: {error}); delete it to go on without it.") from None
    if not isinstance(state, dict):
        raise DamagedError(f"{path} is damaged (it is no state); delete it to go on without it.")
    return state


def _pack(value: Any, tensors: "dict[str, torch.Tensor]") -> Any:
    import torch

    if isinstance(value, torch.Tensor):
        name = f"{len(tensors):06d}"
        # A copy: safetensors refuses tensors that share storage.
        tensors[name] = value.detach().to("cpu", copy=True).contiguous()
        return {"tensor": name}
    if isinstance(value, dict):
        return {"items": [[key, _pack(item, tensors)] for key, item in value.items()]}
    if isinstance(value, list):
        return [_pack(item, tensors) for item in value]
    if isinstance(value, tuple):
        return {"tuple": [_pack(item, tensors) for item in value]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"cannot store a {type(value).__name__} in a state file")


def _unpack(value: Any, tensors: "dict[str, torch.Tensor]") -> Any:
    if isinstance(value, list):
        return [_unpack(item, tensors) for item in value]
    if isinstance(value, dict):
        if "tensor" in value:
            return tensors[value["tensor"]]
        if "tuple" in value:
            return tuple(_unpack(item, tensors) for item in value["tuple"])
        return {key: _unpack(item, tensors) for key, item in value["items"]}
    return value


@contextlib.contextmanager
def lock(
    path: str | Path,
    *,
    timeout: float = 0,
    holder: str = "another process",
    on_wait: Callable[[], None] = lambda: None,
) -> Iterator[None]:
    """Hold an exclusive lock that the system releases when its holder dies.

    ``on_wait`` is called once when it is not free at once. Raises FileError when it is not free within ``timeout``
    seconds.
    """
    from filelock import FileLock, Timeout

    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        guard = FileLock(path)
        try:
            guard.acquire(timeout=0)
        except Timeout:
            on_wait()
            guard.acquire(timeout=timeout)
    except Timeout:
        raise FileError(f"{holder} holds {path}; wait for it to end, or end it, then run this again.") from None
    except OSError as error:
        raise FileError(f"cannot lock {path}: {error}") from None
    try:
        yield
    finally:
        guard.release()
