"""Checksums of files and folders: our own, and those that DVC records."""

import fnmatch
import functools
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from sglr.files.atomic_writes import PARTIAL, FileError

# Systems that forbid it for security (FIPS) allow it for this.
_md5 = functools.partial(hashlib.md5, usedforsecurity=False)
# As in .dvcignore.
_BESIDE_FILES = (".*.sw?", "*~", ".#*", "#*#", ".DS_Store", "._*", ".nfs*")


def digest(*paths: str | Path) -> str:
    """SHA-256 over the contents of files and, recursively and in name order, of folders, whose bytecode, and what
    editors and file systems keep beside a file, is left out."""
    total = hashlib.sha256()
    for path in map(Path, paths):
        members = sorted(path.rglob("*")) if path.is_dir() else [path]
        for member in members:
            if member.is_file() and "__pycache__" not in member.parts and not _beside_a_file(member.name):
                total.update(str(member.relative_to(path)).encode())
                with member.open("rb") as file:
                    total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def sha256(path: str | Path) -> str:
    """SHA-256 of one file; FileError where it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise FileError(f"cannot read {path}: {error}") from None


def md5(path: str | Path) -> str:
    """MD5 of one file, as DVC records it."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, _md5).hexdigest()


def dvc_digest(path: str | Path, md5: Callable[[Path], str] = md5) -> str | None:
    """What DVC records for a file (its MD5) or a folder (the MD5 of a listing of its files); None for neither.

    What .dvcignore leaves out of folders (bytecode, .gitignore, files under way, what is kept beside files) is left
    out. ``md5`` is called on each file, by default the function of this name: callers that look at many folders may
    give one that caches.
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
    return _md5(json.dumps(listing, sort_keys=True).encode()).hexdigest() + ".dir"


def _ignored_by_dvc(path: Path) -> bool:
    under_way = path.name.startswith(".") and path.suffix == PARTIAL
    made = "__pycache__" in path.parts or path.suffix == ".pyc" or path.name == ".gitignore"
    return under_way or made or _beside_a_file(path.name)


def _beside_a_file(name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in _BESIDE_FILES)
