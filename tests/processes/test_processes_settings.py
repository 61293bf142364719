"""What this project asks of the process it runs in."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from sglr import processes

ROOT = Path(__file__).parents[2]
FAULTS = """
import resource, sys
import torch
from sglr import processes
if sys.argv[1] == "kept":
    processes.keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def once():
    before = faults()
    torch.ones(2**24)  # 64 MiB
    return faults() - before
print(min(once() for _ in range(20)))  # where it lies may change some times, six were seen
"""


NEW_ENOUGH = platform.libc_ver()[0] == "glibc" and platform.libc_ver()[1] >= "2.36"


@pytest.mark.slow
@pytest.mark.skipif(not NEW_ENOUGH, reason="glibc's own; older ones keep up to 32 MiB")
def test_freed_memory_serves_the_next_tensors():
    """A step takes and leaves the same memory again and again: 16,384 pages here, or 32 huge ones."""
    found = {
        asked: int(subprocess.run([sys.executable, "-c", FAULTS, asked], capture_output=True, check=True).stdout)
        for asked in ("kept", "given back")
    }
    assert found["kept"] < 8 < 32 <= found["given back"]


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_elsewhere_nothing_is_done(monkeypatch: pytest.MonkeyPatch, system: str):
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.delattr(processes.settings.ctypes, "CDLL")
    processes.keep_freed_memory()


@pytest.mark.parametrize(("largest", "expected"), [(2**30, [2**30]), (2**25, [2**30, 2**25]), (0, [2**30, 2**25])])
def test_older_versions_take_less(monkeypatch: pytest.MonkeyPatch, largest: int, expected: list[int]):
    """The second setting alone would make it worse: it comes only where the first was taken."""
    asked: list[tuple[int, int]] = []

    class Library:
        @staticmethod
        def mallopt(number: int, size: int) -> bool:
            asked.append((number, size))
            return number == -1 or size <= largest

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(processes.settings.ctypes, "CDLL", lambda name: Library)
    processes.keep_freed_memory()
    assert asked == [(-3, size) for size in expected] + ([(-1, 2**30)] if largest else [])


def test_without_glibc_nothing_is_done(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(processes.settings.ctypes, "CDLL", lambda name: object())
    processes.keep_freed_memory()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ("PASSIVE", "4000")),
        ({"GOMP_SPINCOUNT": "7"}, ("PASSIVE", "7")),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, ("ACTIVE", None)),
    ],
)
def test_threads_of_stages_wait_as_the_user_says_or_for_a_moment(given: dict[str, str], expected: tuple):
    ask = "import os, stages; print((os.environ['OMP_WAIT_POLICY'], os.environ.get('GOMP_SPINCOUNT')))"
    inherited = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    said = subprocess.run(
        [sys.executable, "-c", ask], cwd=ROOT, env=inherited | given, capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == str(expected)
