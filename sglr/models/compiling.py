"""Networks compiled by torch.compile, where that pays."""

from typing import Literal

import torch
from torch import Tensor, nn

Compile = Literal["auto", "on", "off"]


def compiled(network: nn.Module, device: torch.device, asked: Compile) -> nn.Module:
    """``network`` or, ``on`` any device and with ``auto`` on a GPU, a compiled one that shares its weights and modes.

    On a GPU its kernels are replayed as CUDA graphs. It is compiled anew for every batch size, mode (train, eval) and
    kind of gradient, at the first call of each. A network that cannot be compiled raises torch's own error then.
    """
    if asked == "off" or (asked == "auto" and device.type != "cuda"):
        return network
    mode = "reduce-overhead" if device.type == "cuda" else None
    made = torch.compile(network, mode=mode, fullgraph=True, dynamic=False)
    assert isinstance(made, nn.Module)
    return _Compiled(made)


class _Compiled(nn.Module):
    """Gives copies of what the compiled network returns: a CUDA graph writes its next outputs into the same memory."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.module(x)
        return logits.clone()
