"""Random streams that depend on their purpose, not on what was drawn before.

A stream is named by (seed, purpose, epoch, step). A resumed run, a run on several processes and an uninterrupted one
therefore see the same numbers.
"""

import contextlib
import hashlib
import random
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch


def derive(seed: int, purpose: str, epoch: int = 0, step: int = 0) -> int:
    """A 63-bit seed from the four coordinates (SHA-256, so that neighbouring seeds are unrelated).

    Torch's generators on a CPU use 32 bits of it: of the 160,000 streams of a training a few pairs are equal.
    """
    digest = hashlib.sha256(f"{seed}/{purpose}/{epoch}/{step}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def numpy_stream(seed: int, purpose: str) -> np.random.Generator:
    """A NumPy generator for the named stream of what is drawn once, without epoch and step."""
    return np.random.Generator(np.random.PCG64(derive(seed, purpose)))


def torch_stream(
    seed: int, purpose: str, epoch: int = 0, step: int = 0, device: "torch.device | str" = "cpu"
) -> "torch.Generator":
    """A torch generator for the named stream, on ``device``. CPU and CUDA streams differ from each other."""
    import torch

    generator = torch.Generator(device=device)
    generator.manual_seed(derive(seed, purpose, epoch, step))
    return generator


def seed_torch(seed: int, device: "torch.device") -> None:
    """Torch's global generators on the CPU and, where that is a GPU, on ``device`` begin with a seed.

    ``torch.manual_seed`` would seed those of GPUs that are not used, too, and without any it takes 0.1 to 0.4 ms.
    """
    import torch

    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


@contextlib.contextmanager
def seeded(seed: int, device: "torch.device") -> Iterator[None]:
    """In the block torch's global generators begin with a seed, as in ``seed_torch``; then they are as they were."""
    import torch

    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        seed_torch(seed, device)
        yield


@contextlib.contextmanager
def undisturbed() -> Iterator[Callable[[], bool]]:
    """Draws within the block are undone: the global generators of torch, NumPy and Python go on as if it had not been.

    Yields a function that says whether any of them was drawn from, or seeded, so far.
    """
    import torch

    on_gpus = torch.cuda.is_initialized()

    def states() -> tuple[Any, ...]:
        gpus = torch.cuda.get_rng_state_all() if on_gpus else []
        _, keys, *rest = np.random.get_state()  # noqa: NPY002 (others draw from it)
        return [torch.get_rng_state(), *gpus], [keys, *rest], random.getstate()

    before = states()
    try:
        yield lambda: any(not _equal(*pair) for pair in zip(before, states(), strict=True))
    finally:
        (of_torch, *of_gpus), of_numpy, of_python = before
        torch.set_rng_state(of_torch)
        if on_gpus:
            torch.cuda.set_rng_state_all(of_gpus)
        np.random.set_state(("MT19937", *of_numpy))  # noqa: NPY002
        random.setstate(of_python)


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, list):
        return all(bool(np.all(np.asarray(a) == np.asarray(b))) for a, b in zip(one, other, strict=True))
    return bool(one == other)
