"""Networks compiled by torch.compile, where it is worthwhile."""

from typing import Any

import torch
import torch._functorch.config
from torch import Tensor, nn

from sglr.config.fields import Compile


def compiled(
    network: nn.Module, device: torch.device, asked: Compile, *, batch: int | None = None, any_size: bool = False,
    channels_last: bool = False,
) -> nn.Module:  # fmt: skip
    """``network`` or, with ``always``, or ``auto`` on a GPU, a compiled one that shares its weights and modes.

    It is recompiled for every batch size, mode (train, eval) and kind of gradient, at the first call of each, and on
    a GPU replayed as CUDA graphs; with ``batch`` for that size alone, and others, such as an epoch's last, go through
    ``network`` as it is; with ``any_size`` once for all batch sizes, without graphs, and its backward pass may be made
    more than once. Of one network torch compiles eight variants and runs further ones as they are. The backward
    pass computes the gradients of all weights that require one, wanted or not.

    channels_last: how images and weights lie. On a GPU torch would otherwise turn them all over in every call.
    """
    if not wanted(asked, device):
        return network
    torch.compiler.reset()  # what was compiled of an earlier network of the same class counts among the eight
    if any_size:
        # FAB asks for several gradients of one forward pass, whose memory may not be released at the first. Torch
        # looks at this when it compiles and at every backward pass, so that it stays set.
        torch._functorch.config.donated_buffer = False
    made = graphs(_Called(network), device, any_size=any_size, channels_last=channels_last)
    return _Compiled(made, network, batch, any_size)


def wanted(asked: Compile, device: torch.device) -> bool:
    """Whether to compile: with ``always``, or ``auto`` on a GPU."""
    return asked == "always" or (asked == "auto" and device.type == "cuda")


def graphs(
    module: nn.Module, device: torch.device, *, any_size: bool = False, channels_last: bool = False
) -> nn.Module:
    """``module`` compiled, on a GPU replayed as CUDA graphs, whose outputs the next replay overwrites."""
    on_gpu = {"triton.cudagraphs": not any_size, "layout_optimization": channels_last}
    options: dict[str, Any] | None = on_gpu if device.type == "cuda" else None
    made = torch.compile(module, dynamic=None if any_size else False, options=options)
    assert isinstance(made, nn.Module)
    return made


class _Called(nn.Module):
    """Calls a network, whose own hooks torch would otherwise leave out of the compiled graph."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.module(x)
        return logits


class _Compiled(nn.Module):
    """Returns copies of the compiled network's outputs: a CUDA graph writes its next outputs into the same memory."""

    def __init__(self, module: nn.Module, plain: nn.Module, batch: int | None, any_size: bool) -> None:
        super().__init__()
        self.module, self.plain = module, plain
        self.batch, self.any_size = batch, any_size

    def forward(self, x: Tensor) -> Tensor:
        if self.batch is not None and len(x) != self.batch:
            as_it_is: Tensor = self.plain(x)
            return as_it_is
        if self.any_size:
            # The number of images alone: their height and width stay what the code is made for.
            torch._dynamo.maybe_mark_dynamic(x, 0)
        logits: Tensor = self.module(x)
        return logits.clone()


WRAPPERS = (_Called, _Compiled)
"""Modules around a network, which is their ``module``."""
