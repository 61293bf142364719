"""Batches of a split that is resident on its device, and augmentation of each example on its own."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from sglr.random import torch_stream


def order(n: int, *, seed: int, epoch: int) -> Tensor:
    """The order (n,) int64 in which epoch ``epoch`` of run ``seed`` visits n examples; the same on every device."""
    return torch.randperm(n, generator=torch_stream(seed, "order", epoch), device="cpu")


def batches(n: int, batch_size: int, order: Tensor | None = None) -> Iterator[Tensor]:
    """Index tensors of ``batch_size`` examples, in the given order (n,) or from 0 to n - 1; the last may be shorter."""
    order = torch.arange(n) if order is None else order
    if len(order) != n or batch_size < 1:
        raise ValueError(f"cannot cut an order of {len(order)} for {n} examples into batches of {batch_size}")
    yield from order.split(batch_size) if n else ()


def augment(x: Tensor, *, crop_padding: int, flip: bool, generator: torch.Generator) -> Tensor:
    """Images x (N, C, H, W), each cropped at random after zero padding and, where ``flip``, mirrored at random.

    Every one of the (2 p + 1)^2 crops has the same probability, a mirror image one half. On a GPU the generator should
    be the GPU's: nothing then waits for the host.
    """
    if not crop_padding and not flip:
        return x
    draws = draw(len(x), crop_padding=crop_padding, flip=flip, generator=generator)
    return transform(x, draws, crop_padding=crop_padding)


def draw(n: int, *, crop_padding: int, flip: bool, generator: torch.Generator) -> Tensor:
    """The augmentation of each of n examples, (n, 3) int64: row and column of the crop, and 1 for a mirror image.

    For a whole batch: processes that share one each draw and transform all of it and take their rows afterwards, so
    that their number changes nothing.
    """
    device = generator.device
    corner = torch.randint(0, 2 * crop_padding + 1, (n, 2), generator=generator, device=device)
    if not flip:
        return torch.cat([corner, corner.new_zeros(n, 1)], dim=1)
    return torch.cat([corner, torch.randint(0, 2, (n, 1), generator=generator, device=device)], dim=1)


def transform(x: Tensor, draws: Tensor, *, crop_padding: int) -> Tensor:
    """Images x (N, C, H, W) after the crops and reflections in ``draws`` (N, 3)."""
    rows, columns, mirrored = draws.to(x.device, non_blocking=True).unbind(1)
    if crop_padding:
        height, width = x.shape[2:]
        padded = F.pad(x, (crop_padding,) * 4)
        # A view of all crops of each image, from which one is taken.
        crops = padded.unfold(2, height, 1).unfold(3, width, 1)
        x = crops[torch.arange(len(x), device=x.device), :, rows, columns]
    return torch.where(mirrored.bool().view(-1, 1, 1, 1), x.flip(3), x)
