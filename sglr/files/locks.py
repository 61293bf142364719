"""Locks between processes."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from sglr.files.atomic_writes import FileError


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
        raise FileError(f"{holder} holds {path}; wait for it to finish, or stop it, then run this again.") from None
    except (OSError, NotImplementedError) as error:
        raise FileError(f"cannot lock {path}: {error}") from None
    try:
        yield
    finally:
        guard.release()
