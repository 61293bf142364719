"""What DVC would record for a project's files, with the MD5s of large ones kept between commands."""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from sglr import files

KEPT = Path(".sglr", "md5")
"""In a project: a checksum of the rest; then, as JSON by path, size, mtime and ctime in ns, inode and MD5."""
# Smaller ones are read as fast as they are looked up.
_LARGE = 2**16
# Seconds. Written anew within its file system's resolution (2 s at most) a file would keep its mtime.
_SETTLED = 2.0

_State = tuple[int, int, int, int]
_Kept = dict[str, tuple[_State, str]]


@contextlib.contextmanager
def kept(root: Path) -> Iterator[Callable[[Path], str | None]]:
    """Yield ``files.dvc_digest`` for paths in a project: within the block each is looked at once, and of large files
    that are as they were at an earlier call none is read.

    What was read is kept for the next call, of a block that is interrupted too. Where that is impossible, or what was
    kept is damaged, files are read again.
    """
    earlier = _read(root / KEPT)
    known = dict(earlier)

    @cache
    def md5(path: Path) -> str:
        name, begun, state = os.path.relpath(path, root), time.time(), _state(path)
        if name in known and known[name][0] == state:
            return known[name][1]
        found = files.md5(path)
        size, mtime, *_ = state
        if size >= _LARGE and mtime < (begun - _SETTLED) * 1e9 and _state(path) == state:
            known[name] = state, found
        return found

    try:
        yield cache(lambda path: files.dvc_digest(path, md5))
    finally:
        current = {name: entry for name, entry in known.items() if _is(root / name, entry[0])}
        if current != earlier:
            _write(root / KEPT, current)


def _state(path: Path) -> _State:
    """Size, mtime and ctime in ns, and inode, by which git, too, tells files apart without reading them."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def _is(path: Path, state: _State) -> bool:
    with contextlib.suppress(OSError):
        return _state(path) == state
    return False


def _read(path: Path) -> _Kept:
    with contextlib.suppress(OSError, ValueError):
        checksum, _, text = path.read_text(encoding="utf-8").partition("\n")
        if checksum == _checksum(text):
            return {name: (tuple(state), md5) for name, (state, md5) in json.loads(text).items()}
    return {}


def _write(path: Path, entries: _Kept) -> None:
    text = json.dumps(entries)
    with contextlib.suppress(files.FileError):
        files.write_text(path, f"{_checksum(text)}\n{text}")


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
