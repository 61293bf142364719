"""NumPy archives: the same bytes for the same arrays, and nothing unpickled or expanded without limit."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

from sglr.files.atomic_writes import FileError, atomic

if TYPE_CHECKING:
    import numpy as np

# Compressed images shrink to a half, labels to a twentieth; what expands to more than this is made to fill memory.
_MOST_UNFOLDING = 100
_NEVER_TOO_MUCH = 2**28


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
    """FileError for an .npz that would fill the memory: one that expands to far more than its size, or in which an
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
                raise FileError(f"cannot read {path}: its {size:,} bytes expand to {unfolded:,}; it is refused.")
            for member in members:
                with archive.open(member) as file:
                    version = npy.read_magic(file)
                    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
                    shape, _, dtype = read(file)
                # Items of no bytes take room once they are read.
                claimed = math.prod(shape) * max(1, dtype.itemsize)
                if claimed > member.file_size and not dtype.hasobject:
                    name = member.filename.removesuffix(".npy")
                    raise FileError(
                        f"cannot read {path}: {name} claims {claimed:,} bytes, {member.file_size:,} are there; it is"
                        " refused."
                    )
    except FileError:
        raise
    except (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error):
        return  # damaged, or no archive at all: reported when it is read


def read_arrays(path: str | Path) -> "dict[str, np.ndarray]":
    """The named arrays of an .npz; FileError when it is missing or damaged. Nothing is unpickled."""
    import zipfile
    import zlib

    import numpy as np

    require_honest(path)
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    # For an archive that is compressed in another way or encrypted, zipfile raises NotImplementedError or RuntimeError.
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
