"""Outputs of a trained network for natural and attacked images: penultimate features and class probabilities."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sglr import threat
from sglr.attacks import pgd
from sglr.config import Config
from sglr.data import Split
from sglr.information.checks import Floats
from sglr.models import Classifier
from sglr.random import torch_stream

INPUTS = ("natural", "adversarial")


@dataclass(frozen=True)
class Activations:
    """features: float64 (N, D), the last layer's input; log_probs: float64 (N, C), log softmax of its output; images:
    the first ``keep`` of those shown, on the model's device."""

    features: Floats
    log_probs: Floats
    images: Tensor

    @property
    def probs(self) -> Floats:
        """Class probabilities (N, C)."""
        return np.exp(self.log_probs)


def observe(
    model: Classifier, split: Split, index: Tensor, labels: Tensor, config: Config, *, purpose: str, keep: int = 0
) -> dict[str, Activations]:
    """Activations for the chosen images as they are and attacked, keys as in INPUTS.

    index: int64 (n,) into the split; labels: int64 (n,), those the attack leads away from; model: in eval mode on the
    split's device, so that an example's row depends on that example alone. The attack is PGD with the settings of
    ``config.analyze.attack``; its random starts depend on ``config.analyze.seed``, ``purpose`` and the batch only, so
    that methods and checkpoints see the same.
    """
    settings = config.analyze.attack
    ball = threat.of(config.threat)
    size = config.analyze.batch_size
    parts: dict[str, list[Activations]] = {kind: [] for kind in INPUTS}
    for number, (chosen, y) in enumerate(zip(index.split(size), labels.split(size), strict=True)):
        x = split.images(chosen)
        x_adv = pgd(
            model, x, y, threat=ball, steps=settings.steps, step_size=settings.step_size(ball.eps),
            random_start=settings.random_start,
            generator=torch_stream(config.analyze.seed, purpose, step=number, device=x.device),
        )  # fmt: skip
        for kind, images in zip(INPUTS, (x, x_adv), strict=True):
            parts[kind].append(forward(model, images, keep=max(0, keep - number * size)))
    return {kind: joined(some) for kind, some in parts.items()}


@torch.no_grad()
def forward(model: Classifier, x: Tensor, *, keep: int = 0) -> Activations:
    """Activations for images x (N, C, H, W) in [0, 1], in the mode the model is in; softmax in float64."""
    features = model.features(x)
    log_probs = model.head(features).cpu().double().log_softmax(1)
    return Activations(features.cpu().double().numpy(), log_probs.numpy(), x[:keep])


def joined(parts: list[Activations]) -> Activations:
    """The activations of several batches as one."""
    return Activations(
        np.concatenate([part.features for part in parts]),
        np.concatenate([part.log_probs for part in parts]),
        torch.cat([part.images for part in parts]),
    )
