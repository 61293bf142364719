"""Random streams that depend on their purpose, not on what was drawn before.

A stream is named by (seed, purpose, epoch, step). A resumed run, a run on several processes and an uninterrupted one
therefore see the same numbers.
"""

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def derive(seed: int, purpose: str, epoch: int = 0, step: int = 0) -> int:
    """A 63-bit seed from the four coordinates (SHA-256, so that neighbouring seeds are unrelated).

    Torch's generators on a CPU use 32 bits of it: of the 160,000 streams of a training a few pairs are equal.
    """
    digest = hashlib.sha256(f"{seed}/{purpose}/{epoch}/{step}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def numpy_stream(seed: int, purpose: str, epoch: int = 0, step: int = 0) -> np.random.Generator:
    """A NumPy generator for the named stream."""
    return np.random.Generator(np.random.PCG64(derive(seed, purpose, epoch, step)))


def torch_stream(
    seed: int, purpose: str, epoch: int = 0, step: int = 0, device: "torch.device | str" = "cpu"
) -> "torch.Generator":
    """A torch generator for the named stream, on ``device``. CPU and CUDA streams differ from each other."""
    import torch

    generator = torch.Generator(device=device)
    generator.manual_seed(derive(seed, purpose, epoch, step))
    return generator
