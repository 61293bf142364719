"""The precision in which everything is computed that is measured of a model."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """Within the block float32 is float32 on CUDA: no TF32, no reduced-precision sums; afterwards all is as it was."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    settings: tuple[tuple[Any, str], ...] = (
        (matmul, "allow_fp16_reduced_precision_reduction"),
        (matmul, "allow_bf16_reduced_precision_reduction"),
        (cudnn, "allow_tf32"),
    )
    before = [getattr(where, name) for where, name in settings]
    precision = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("highest")
        for where, name in settings:
            setattr(where, name, False)
        yield
    finally:
        torch.set_float32_matmul_precision(precision)
        for (where, name), value in zip(settings, before, strict=True):
            setattr(where, name, value)
