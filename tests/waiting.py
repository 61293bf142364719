"""Waiting for what other processes and threads do."""

import subprocess
import time
from collections.abc import Callable


def until(
    true: Callable[[], object],
    what: str = "",
    *,
    running: "subprocess.Popen[bytes] | None" = None,
    said: Callable[[], str] = lambda: "",
    seconds: float = 120,
) -> None:
    """Wait until something holds. Fail when it does not in time, or when the process ``running`` ends before; ``said``
    is then asked why."""
    deadline = time.monotonic() + seconds
    while not true():
        assert running is None or running.poll() is None, said()
        assert time.monotonic() < deadline, f"waited {seconds} s for {what or 'something'}"
        time.sleep(0.01)
