"""Precision of float32 operations: float32 to evaluate and analyse models, TF32 where training asks for it."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """Within the block float32 is float32: no autocast of the caller's, on CUDA no TF32 and no reduced-precision sums.

    Afterwards all is as it was.
    """
    matmul = torch.backends.cuda.matmul
    names = ("allow_fp16_reduced_precision_reduction", "allow_bf16_reduced_precision_reduction")
    before = {name: getattr(matmul, name) for name in names}
    with float32_products(), contextlib.ExitStack() as stack:
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        try:
            for name in names:
                setattr(matmul, name, False)
            yield
        finally:
            for name, value in before.items():
                setattr(matmul, name, value)


@contextlib.contextmanager
def float32_products(*, tf32: bool = False) -> Iterator[None]:
    """Within the block products of float32 are computed exactly so, or in TF32 on CUDA; afterwards all is as it was.

    Torch has two interfaces for it, and wherever it reads the older it refuses what the newer (2.9) alone has set: both
    are set here.
    """
    cuda, cudnn, mkldnn = torch.backends.cuda, torch.backends.cudnn, torch.backends.mkldnn
    places = [(cuda, "matmul"), (cudnn, "conv"), (cudnn, "rnn"), (mkldnn, "matmul"), (mkldnn, "conv")]
    found = [getattr(where, name, None) for where, name in places]
    newer: list[Any] = [place for place in found if hasattr(place, "fp32_precision")]
    values = [place.fp32_precision for place in newer]
    # Where they cannot be read they are what torch begins with: only the newer interface was used.
    precision = _read(torch.get_float32_matmul_precision, "highest")
    allowed = _read(lambda: cudnn.allow_tf32, True)
    try:
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        cudnn.allow_tf32 = tf32
        if not tf32:
            for place in newer:
                place.fp32_precision = "ieee"
        yield
    finally:
        torch.set_float32_matmul_precision(precision)
        cudnn.allow_tf32 = allowed
        for place, value in zip(newer, values, strict=True):
            place.fp32_precision = "none"  # what holds for all
            if place.fp32_precision != value:
                place.fp32_precision = value


@contextlib.contextmanager
def float32_by_default() -> Iterator[None]:
    """Within the block new tensors are float32 where nothing else is asked for, whatever the caller's default is."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _read(setting: Callable[[], Any], otherwise: Any) -> Any:
    try:
        return setting()
    except RuntimeError:
        return otherwise
