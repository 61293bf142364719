"""Files that are complete or absent, and the errors of those that are not."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sglr.config.errors import UserError

PARTIAL = ".partial"
"""How the hidden names of files under way end; leftovers of a kill belong to nobody (.dvcignore names them too)."""
# Read once, here: reading the mask means setting it for a moment, which would meet the writes of another thread.
_UMASK = os.umask(0)
os.umask(_UMASK)


class FileError(UserError, RuntimeError):
    """A file that is missing, damaged or cannot be written; the message names it and says what to do."""


class DamagedError(FileError):
    """A file whose content is not what was written."""


@contextlib.contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path next to ``path`` that takes its place when the block ends without an error.

    The bytes are on disk before the name is. On any error the temporary file goes and ``path`` stays as it was; an
    OSError (full disk, no permission) becomes a FileError.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PARTIAL)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("r+b") as file:  # Windows flushes what may be written only
            os.fsync(file.fileno())
        with contextlib.suppress(PermissionError):  # some file systems have modes of their own
            temporary.chmod(0o666 & ~_UMASK)
        temporary.replace(path)
        temporary = None
    except OSError as error:
        # NumPy counts what a full disk accepted and does not say why it was not more.
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
