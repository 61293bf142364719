"""What a machine can do at best: its measured rate of matrix products."""

import statistics
import time

import torch
from layout import seconds
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from sglr.training.precision import computing

# A GPU at rest has a fifth of its clock.
_WARM = 0.3
_SIZES = {"cpu": (512, 1024, 2048), "cuda": (4096, 8192)}


def rate(precision: str, device: torch.device, rounds: int = 20) -> float:
    """Floating point operations a second of square matrix products, the best of a few sizes (medians of rounds),
    after ``_WARM`` seconds of them."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    found = []
    with computing("tf32" if precision == "tf32" else "fp32", device):
        for n in _SIZES[device.type]:
            a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
            ready = time.perf_counter() + _WARM
            while time.perf_counter() < ready:
                seconds(lambda a=a, b=b: a @ b, device)
            times = [seconds(lambda a=a, b=b: a @ b, device) for _ in range(rounds)]
            found.append(2 * n**3 / statistics.median(times))
    return max(found)


class Counted(TorchDispatchMode):
    """Counts floating point operations (a multiply-add is two) of products and convolutions while it is entered.

    FlopCounterMode itself follows modules by hooks that `torch.autograd.grad` with respect to a module's input does
    not allow.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        count = flop_registry.get(function._overloadpacket)
        if count is not None:
            self.total += count(*args, **kwargs, out_val=result)
        return result
