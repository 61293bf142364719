"""Files that are complete or absent: atomic writes, checksums, arrays, nested state, locks."""

from sglr.files.arrays import read_arrays, require_honest, write_arrays
from sglr.files.atomic_writes import PARTIAL, DamagedError, FileError, atomic, write_bytes, write_text
from sglr.files.digests import digest, dvc_digest, md5, sha256
from sglr.files.locks import lock
from sglr.files.state import load_state, require_storable, save_state
from sglr.files.text import as_csv, is_printable, read_json, read_rows, write_json, write_rows

__all__ = [
    "PARTIAL", "DamagedError", "FileError", "as_csv", "atomic", "digest", "dvc_digest", "is_printable", "load_state",
    "lock", "md5", "read_arrays", "read_json", "read_rows", "require_honest", "require_storable", "save_state",
    "sha256", "write_arrays", "write_bytes", "write_json", "write_rows", "write_text",
]  # fmt: skip
