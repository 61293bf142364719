"""What a user asks for, and what a launcher says: devices, numbers of processes, a place among them."""

import contextlib

import pytest
import torch

from sglr import processes
from sglr.config import ConfigError

CPU = torch.device("cpu")


def test_how_many():
    assert processes.count("auto", CPU) == 1
    assert processes.count("3", CPU) == 3
    for wrong in ("0", "-1", "two", "1.5", ""):
        with pytest.raises(ConfigError, match="SGLR_NPROC"):
            processes.count(wrong, CPU)
    assert processes.device_of(3, CPU) == CPU


def test_gpus_are_taken_in_turns(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    found = [processes.device_of(rank, torch.device("cuda")) for rank in range(3)]
    assert [device.index for device in found] == [0, 1, 0]
    assert processes.device_of(2, torch.device("cuda:1")).index == 1
    assert processes.count("auto", torch.device("cuda")) == 2
    assert processes.count("auto", torch.device("cuda:1")) == 1


def test_the_gpu_in_use_is_the_current_one(monkeypatch):
    made = []
    monkeypatch.setattr(torch.cuda, "device", lambda device: made.append(device) or contextlib.nullcontext())
    for device in (CPU, torch.device("cuda:1")):
        with processes.current(device):
            pass
    assert made == [torch.device("cuda:1")]


@pytest.mark.parametrize(
    ("rank", "size", "local", "found"),
    [
        (None, None, None, None), ("0", "1", "0", None), ("3", "4", "1", processes.Launch(3, 4, 1)),
        ("0", "1", None, None),
    ],
)  # fmt: skip
def test_a_launcher_is_recognised(monkeypatch, rank, size, local, found):
    for name, value in (("RANK", rank), ("WORLD_SIZE", size), ("LOCAL_RANK", local)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert processes.launched() == found


@pytest.mark.parametrize(
    ("rank", "size", "local"),
    [("2", "2", "0"), ("-1", "2", "0"), ("one", "2", "0"), ("0", "0", "0"), ("0", "2", "2"), ("0", "2", None)],
)
def test_a_launcher_that_says_nonsense_is_refused(monkeypatch, rank, size, local):
    """Without LOCAL_RANK all processes of a machine would take the same GPU."""
    for name, value in (("RANK", rank), ("WORLD_SIZE", size), ("LOCAL_RANK", local)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    said = f"RANK={rank}, WORLD_SIZE={size}" if local else r"LOCAL_RANK is not \(0 where each machine has one process\)"
    with pytest.raises(ConfigError, match=said):
        processes.launched()
