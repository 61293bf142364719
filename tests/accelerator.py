"""A pretended accelerator: tensors that say they are on the device "meta" and keep their values on the CPU.

What runs on it takes the same way through the code as on a GPU: it ends in an error where tensors of two devices meet,
and it is noted where the host would wait for the device. It shows nothing of a GPU's kernels, speed or rounding.
"""

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("meta")
aten = torch.ops.aten
COPIES = {aten._to_copy.default, aten.copy_.default}
# An index may lie on the host: torch sends it to the device, and waits for that.
INDEXING = {aten.index.Tensor, aten.index_put_.default, aten._index_put_impl_.default}
# What comes of them, or its shape, must be known to the host.
ASKING = {
    aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default, aten.equal.default,
    aten._unique2.default,
}  # fmt: skip


class There(Tensor):
    """A tensor on the accelerator; ``here`` holds its values."""

    __torch_function__ = torch._C._disabled_torch_function_impl
    here: Tensor

    @staticmethod
    def __new__(cls, here: Tensor) -> "There":
        made: There = Tensor._make_wrapper_subclass(
            cls, here.shape, strides=here.stride(), storage_offset=here.storage_offset(), dtype=here.dtype,
            device=DEVICE,
        )  # fmt: skip
        made.here = here
        return made

    def __format__(self, how: str) -> str:
        return format(self.item(), how)

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        return _run(operation, args, kwargs or {})[0]


class Accelerator(TorchDispatchMode):
    """Within it, what asks for the device "meta" gets a tensor There. ``waits``: what the host waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result, waits = _run(operation, args, kwargs or {})
        if waits:
            self.waits.append(str(operation))
        return result


class Generator(torch.Generator):
    """A generator that says where it was asked to be, and draws what one on the CPU draws."""

    def __new__(cls, device: Any = "cpu") -> "Generator":
        made = super().__new__(cls)
        made.asked = torch.device(device)
        return made

    @property
    def device(self) -> torch.device:
        return self.asked


@contextlib.contextmanager
def accelerator() -> Iterator[Accelerator]:
    """The accelerator, in use within the block. Autocast, which meta has none of, does nothing on it."""
    asks, casts = torch.is_autocast_enabled, torch.autocast
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(), Accelerator() as found:
        # A state dict goes into a meta tensor without effect, but into one There.
        warnings.filterwarnings("ignore", message=".*to a meta parameter")
        patch.setattr(torch, "Generator", Generator)
        patch.setattr(torch, "is_autocast_enabled", lambda kind: kind != DEVICE.type and asks(kind))
        patch.setattr(
            torch, "autocast",
            lambda kind, *a, **b: contextlib.nullcontext() if kind == DEVICE.type else casts(kind, *a, **b),
        )  # fmt: skip
        yield found


def _run(operation: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, bool]:
    """What an operation gives, and whether the host waits for it."""
    tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
    there = any(isinstance(value, There) for value in tensors)
    here = any(not isinstance(value, There) and value.dim() > 0 for value in tensors)
    if there and here and operation not in COPIES | INDEXING:
        raise RuntimeError(f"{operation}: tensors of two devices")
    asked = kwargs.get("device")
    goes = there if asked is None else torch.device(asked).type == DEVICE.type
    if asked is not None and goes:
        kwargs = {**kwargs, "device": "cpu"}
    result = operation(*tree_map(_here, args), **tree_map(_here, kwargs))
    masks = operation in INDEXING and any(value.dtype == torch.bool for value in tensors[1:2])
    moves = (there and not goes) or (here and goes and bool(tensors))
    waits = (there and (operation in ASKING or masks)) or moves
    if not goes:
        return result, waits
    return return_and_correct_aliasing(operation, args, kwargs, tree_map(_there, result)), waits


def _here(value: Any) -> Any:
    return value.here if isinstance(value, There) else value


def _there(value: Any) -> Any:
    return There(value) if type(value) is Tensor else value
