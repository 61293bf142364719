"""Conditions on a checkpoint before its outcomes count: unchanged weights, logits that are logits."""

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from sglr import files
from sglr.attacks.losses import single_logit
from sglr.config.errors import ModelError
from sglr.data import Images

# Images on which predictions at two batch sizes are compared; a batch size that divides nothing else in use (half of
# the batch in use, where it is that).
_COMPARED, _OTHER_BATCH = 256, 37


def model_at(path: Path) -> str:
    """How errors name the model in a folder."""
    return f"the model at {path}"


@contextlib.contextmanager
def unchanged(model: nn.Module, called: str) -> Iterator[None]:
    """ModelError that names the model where it is in train mode, or weights or buffers differ after the block."""
    if any(module.training for module in model.modules()):
        raise ModelError(f"{called} cannot be evaluated: part of it is in train mode.")
    before = _checksum(model)
    yield
    if _checksum(model) != before:
        raise ModelError(
            f"evaluating {called} changed its weights or batch-norm statistics: the outcomes do not count."
        )


@torch.no_grad()
def inspect(model: nn.Module, images: Tensor | Images, num_classes: int, batch_size: int, called: str) -> list[str]:
    """Warnings that make outcomes of this model doubtful, from its logits on the first 256 images (N, C, H, W).

    Raises ModelError that names the model, as it is ``called``, where they cannot count at all (another number of
    classes than the data's, logits that are NaN or infinite); FileError for images outside [0, 1].
    """
    x = images[:_COMPARED]
    if not bool(((x >= -1e-6) & (x <= 1 + 1e-6)).all()):
        low, high = float(x.min()), float(x.max())
        raise files.FileError(f"the test images are not in [0, 1] (found {low:.3g} to {high:.3g}).")
    logits = torch.cat([model(part) for part in x.split(batch_size)])
    if logits.dim() != 2 or logits.shape[1] != num_classes:
        single = single_logit(logits)
        raise ModelError(
            f"{called} gives {list(logits.shape[1:])} numbers per image, but the data has {num_classes} classes"
            + (f": {single}." if single else ".")
        )
    broken = int((~logits.isfinite()).any(1).sum())
    if broken:
        raise ModelError(f"{called} gives NaN or infinite logits for {broken} of {len(x)} images.")
    flags = []
    if bool((logits >= 0).all()) and bool(((logits.sum(1) - 1).abs() < 1e-4).all()):
        flags.append("the outputs look like probabilities, not logits: losses meant for logits lose their gradient")
    together, other = (min(len(x), size) for size in (batch_size, _OTHER_BATCH))
    if together == other:
        other = max(1, other // 2)
    others = torch.cat([model(part) for part in x.split(other)])
    differing = int((others.argmax(1) != logits.argmax(1)).sum())
    if differing:
        flags.append(f"predictions of {differing} of {len(x)} images depend on the batch size, or on chance")
    return flags


def _checksum(model: nn.Module) -> str:
    total = hashlib.sha256()
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        total.update(name.encode())
        total.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
