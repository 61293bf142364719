"""What training computes in: float32, on CUDA perhaps TF32, or bfloat16 where that does no harm.

Under ``bf16`` weights, their updates, batch-norm statistics, losses, label tables, images and the first convolution
(where there is none, the first linear layer) stay float32: near 1 bfloat16 has a spacing of 1/256, a whole pixel step.
On a GPU that layer multiplies in TF32, which rounds an image by at most 1/16 of a pixel step; float32 itself has no
tensor cores. Evaluation and analysis compute in float32; what is measured after an epoch, in ``monitoring``.
"""

import contextlib
from collections.abc import Callable, Iterator
from functools import cache

import torch
from torch import Tensor, nn

from sglr.config.fields import Precision
from sglr.models.precision import float32_products, full_precision


@contextlib.contextmanager
def computing(precision: Precision, device: torch.device) -> Iterator[None]:
    """Within the block torch computes in this precision; what it was set to before is set again afterwards.

    On a GPU cuDNN tries its algorithms for each new shape of a convolution: within training they are few.
    """
    # No cache: weights change within a step (see awp), and forwards with and without gradients mix.
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16", cache_enabled=False)
    tf32 = precision == "tf32" or (precision == "bf16" and device.type == "cuda")
    with float32_products(tf32=tf32), _trials(device.type == "cuda"), autocast:
        yield


@contextlib.contextmanager
def _trials(wanted: bool) -> Iterator[None]:
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = wanted or before
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


@contextlib.contextmanager
def monitoring(precision: Precision, device: torch.device) -> Iterator[None]:
    """Within the block float32 is what a training of this precision is watched in after each epoch: TF32 on a GPU that
    trains in TF32 or bfloat16, whose steps are several times faster than float32's; else float32."""
    fast = precision != "fp32" and device.type == "cuda"
    with float32_products(tf32=True) if fast else full_precision():
        yield


def memory_format(precision: Precision, device: torch.device) -> torch.memory_format:
    """How images and weights lie in memory: channels last for bf16, where it was faster on a CPU, and for what a GPU
    computes in its tensor cores."""
    last = precision == "bf16" or (precision == "tf32" and device.type == "cuda")
    return torch.channels_last if last else torch.contiguous_format


def exact_ends(model: nn.Module) -> Callable[[], None]:
    """Under autocast, let ``model`` take images and give logits in float32: its first convolution, or else its first
    linear layer, stays out of it. Returns what undoes that."""
    hook = model.register_forward_hook(lambda module, inputs, logits: logits.float())
    layers = [module for kind in (nn.Conv2d, nn.Linear) for module in model.modules() if isinstance(module, kind)]
    for first in layers[:1]:
        if not isinstance(first, _Exact):
            first.__class__ = _exact(type(first))  # type: ignore[arg-type, assignment]

    def undo() -> None:
        hook.remove()
        for first in layers[:1]:
            if isinstance(first, _Exact):
                first.__class__ = type(first).__mro__[2]  # what it was, behind _Exact; whoever changed it

    return undo


class _Exact:
    """What a layer does under autocast: compute in float32, and give what autocast computes in."""

    def forward(self, x: Tensor) -> Tensor:
        kind = x.device.type
        if not torch.is_autocast_enabled(kind):
            exact: Tensor = super().forward(x)  # type: ignore[misc]
            return exact
        with torch.autocast(kind, enabled=False):
            exact = super().forward(x)  # type: ignore[misc]
        return exact.to(torch.get_autocast_dtype(kind))


@cache
def _exact(kind: type[nn.Module]) -> type[nn.Module]:
    """``kind`` with that forward. Where hooks switch autocast, torch.compile cuts its graphs (2.11; not 2.15)."""
    # torch.fx takes what says that it comes from torch.nn for one operation, as it does the layer itself.
    return type("Exact", (_Exact, kind), {"__module__": kind.__module__})
