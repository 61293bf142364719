"""Which device is meant, and how many processes, by what a user asks for."""

import contextlib
from typing import TYPE_CHECKING

from sglr.config import ConfigError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    import torch


def device(asked: str, called: str = "SGLR_DEVICE") -> "torch.device":
    """The device that ``asked`` stands for: cpu, cuda, cuda:1 ..., or "auto", a GPU where there is one, else the CPU.

    Raises ConfigError for any other, and for a GPU that does not exist; ``called``: the setting's name in messages.
    """
    import torch

    if asked == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(asked)
    except RuntimeError:
        raise ConfigError(f"{called}={asked!r} is not a device; use auto, cpu, cuda or cuda:<number>.") from None
    if found.type not in ("cpu", "cuda"):
        raise ConfigError(
            f"{called}={asked!r} is not supported; use auto, cpu, cuda or cuda:<number>."
            + (" Apple's GPUs have no float64, which training sums in." if found.type == "mps" else "")
        )
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        there = torch.cuda.device_count()
        raise ConfigError(f"{called}={asked!r} requests a GPU, but torch sees {there}. Use {called}=cpu or auto.")
    return found


def count(asked: str, device: "torch.device", called: str = "SGLR_NPROC") -> int:
    """How many processes ``asked`` stands for: a number, or "auto", one per GPU and one on a CPU.

    Raises ConfigError for anything else; ``called``: the setting's name in messages.
    """
    if asked == "auto":
        import torch

        return max(1, torch.cuda.device_count()) if device.type == "cuda" and device.index is None else 1
    if not asked.isascii() or not asked.isdigit() or int(asked) < 1:
        raise ConfigError(f"{called}={asked!r} is not a number of processes; use auto, 1, 2 ...")
    return int(asked)


def current(device: "torch.device") -> "AbstractContextManager[object]":
    """Within the block a GPU is the current one: parts of torch, such as its CUDA graphs, wait for that one."""
    import torch

    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


def device_of(rank: int, device: "torch.device") -> "torch.device":
    """The device of one of several processes: where no GPU was named, they take turns."""
    import torch

    if device.type != "cuda" or device.index is not None:
        return device
    return torch.device("cuda", rank % torch.cuda.device_count())
