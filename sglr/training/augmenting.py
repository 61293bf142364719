"""The augmentation of training batches: crop and reflection, then ``data.augment.more``, each with its own stream."""

import torch
from torch import Tensor

from sglr.augmentations import Augmentation, AugmentationOptions
from sglr.data import Split, augment
from sglr.random import derive, seeded, torch_stream
from sglr.training.errors import TrainingError
from sglr.training.plan import Plan
from sglr.training.trials import fault


class Augmenting:
    """What a plan does to the images of each batch; further augmentations are built with the first."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._more: tuple[Augmentation, ...] | None = None

    def __call__(self, x: Tensor, epoch: int, step: int) -> Tensor:
        """Augmented images of a whole batch x (N, C, H, W) in [0, 1], which may be x itself."""
        plan, seed, stream = self._plan, self._plan.seed, f"{self._plan.stream}/augment"
        x = augment(
            x,
            crop_padding=plan.augment.crop_padding,
            flip=plan.augment.flip,
            generator=torch_stream(seed, stream, epoch, step, x.device),
        )
        if self._more is None:
            self._more = tuple(_built(plan, place, x) for place in range(len(plan.augment.more)))
        for place, augmentation in enumerate(self._more):
            x = _applied(augmentation, x, torch_stream(seed, f"{stream}-{place}", epoch, step, x.device))
        return x


def require_augmentations(plan: Plan, train: Split) -> None:
    """Try each of ``data.augment.more`` on two training images; all random numbers go on as if it had not been.

    TrainingError for one that cannot augment such images, that gives something else than images of the same shape, type
    and device in [0, 1], changes its input, or draws from NumPy's or Python's global random numbers.
    """
    x = train.images(slice(0, 2))
    for place, options in enumerate(plan.augment.more):
        found = _misfit(options, x) or _fault(plan, place, x)
        if found:
            raise TrainingError(f"data.augment.more.{place}: {options.name} {found}")


def _built(plan: Plan, place: int, x: Tensor) -> Augmentation:
    """One of the plan's further augmentations, for images like x; the plan decides what it draws when it is built."""
    channels, height, width = x.shape[1:]
    with seeded(derive(plan.seed, f"augmentation/{place}"), x.device):
        augmentation: Augmentation = plan.augment.more[place].build((channels, height, width))
        return augmentation


def _applied(augmentation: Augmentation, x: Tensor, generator: torch.Generator) -> Tensor:
    with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
        return augmentation(x, generator)


def _misfit(options: AugmentationOptions, x: Tensor) -> str | None:
    channels, height, width = x.shape[1:]
    reason = options.misfit((channels, height, width))
    return f"cannot augment images of {channels}x{height}x{width}: {reason}" if reason else None


def _fault(plan: Plan, place: int, x: Tensor) -> str | None:
    """What an augmentation does wrong with images x (N, C, H, W); None where nothing is found."""
    generator = torch_stream(plan.seed, "augment/trial", device=x.device)
    return fault(lambda given: _applied(_built(plan, place, x), given, generator), x, generator="its generator")
