"""Networks compiled by torch.compile, where that pays."""

from typing import Literal

import torch
from torch import Tensor, nn

Compile = Literal["auto", "always", "never"]


def compiled(network: nn.Module, device: torch.device, asked: Compile, *, any_size: bool = False) -> nn.Module:
    """``network`` or, with ``always``, or ``auto`` on a GPU, a compiled one that shares its weights and modes.

    It is compiled anew for every batch size, mode (train, eval) and kind of gradient, at the first call of each, and on
    a GPU replayed as CUDA graphs; with ``any_size`` once for all batch sizes, without graphs. Of one network torch
    compiles eight variants and runs further ones as they are. The backward pass computes the gradients of all weights
    that require one, wanted or not.
    """
    if asked == "never" or (asked == "auto" and device.type != "cuda"):
        return network
    torch.compiler.reset()  # what was compiled of an earlier network of the same class counts among the eight
    mode = "reduce-overhead" if device.type == "cuda" and not any_size else None
    made = torch.compile(_Called(network), mode=mode, dynamic=any_size)
    assert isinstance(made, nn.Module)
    return _Compiled(made)


class _Called(nn.Module):
    """Calls a network, whose own hooks torch would otherwise leave out of the compiled whole."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.module(x)
        return logits


class _Compiled(nn.Module):
    """Gives copies of what the compiled network returns: a CUDA graph writes its next outputs into the same memory."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.module(x)
        return logits.clone()
