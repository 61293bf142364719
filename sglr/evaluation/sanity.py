"""Signs that an attack fails where a stronger one would not: checks that the field asks for.

Athalye et al. 2018 (obfuscated gradients), Carlini et al. 2019 (on evaluating robustness), Tramer et al. 2020. A flag
means that accuracy under gradient attacks is not to be trusted; the absence of flags proves nothing.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from sglr.attacks import REGISTRY, AttackOptions, pgd
from sglr.attacks.accuracy import predictions
from sglr.attacks.losses import cross_entropy
from sglr.attacks.pgd import input_gradient
from sglr.evaluation.measurement import Measurement
from sglr.evaluation.pieces import Pieces
from sglr.evaluation.statistics import mcnemar
from sglr.random import torch_stream
from sglr.threat import Linf, Threat

# One attack counts as stronger than another below this one-sided exact p of the paired test.
_LEVEL = 0.01
# Share of examples that an unbounded attack may leave; share of them whose gradient may be exactly zero.
_LEFT, _ZERO = 0.02, 0.1
_QUERIES = 200
# Random noise that breaks at least so many examples, and this part of what PGD breaks, is not far weaker.
_NOISE, _PART = 3, 0.5
# Relative difference of logits between two calls that is more than another order of the same sums.
_REPEATED = 1e-3
# Relative fall of the mean loss with more steps that is more than going back and forth around a maximum.
_FALL = 0.05


@dataclass(frozen=True)
class SanityInputs:
    """The examples x (N, C, H, W) in [0, 1] with labels y (N,), the model, and how outcomes are measured.

    ball: the threat model of a radius in [0, 1] units; eps: that of the evaluation; steps: of PGD.
    """

    model: nn.Module
    x: Tensor
    y: Tensor
    ball: Callable[[float], Threat]
    eps: float
    steps: int
    seed: int
    chunk: int
    pieces: Pieces

    def correct(self, name: str, options: AttackOptions | None, eps: float) -> np.ndarray:
        """Correct predictions (N,) under an attack of radius eps."""
        return (
            Measurement(
                self.model, self.x, self.y, options, self.ball(eps), self.seed, self.chunk, self.pieces.below(name)
            )
            .whole()
            .correct
        )


def sanity(inputs: SanityInputs) -> list[str]:
    """One sentence per check that fails; empty for a model without signs of masked gradients."""
    attack = REGISTRY.options("pgd", steps=inputs.steps)
    natural = inputs.correct("natural", None, 0.0)
    white = inputs.correct("pgd", attack, inputs.eps)
    return [
        *stronger("FGSM, one step,", inputs.correct("fgsm", REGISTRY.options("fgsm"), inputs.eps), white),
        *stronger(
            f"Square Attack with {_QUERIES} queries and no gradients",
            inputs.correct("square", REGISTRY.options("square", queries=_QUERIES), inputs.eps), white,
        ),
        *_radius(inputs, attack, white),
        *_noise(inputs, natural, white),
        *_gradients(inputs),
        *_randomness(inputs),
    ]  # fmt: skip


def sanity_passes(steps: int) -> tuple[float, float]:
    """Forward and backward passes of all checks for an example that nothing breaks."""
    gradients = 1 + 3 * steps + max(steps, 20) + steps // 4 + steps
    return gradients + _QUERIES, gradients


def stronger(name: str, weak: np.ndarray, white: np.ndarray, reference: str = "PGD") -> list[str]:
    """Whether what should be weaker breaks more: exact binomial test on the examples where outcomes (n,) differ."""
    test = mcnemar(white, weak)
    if test.only_a > test.only_b and test.p / 2 < _LEVEL:
        return [
            f"{name} breaks {test.only_a} examples that {reference} does not, and {reference} {test.only_b} that it"
            f" does not (one-sided p {test.p / 2:.2g}): gradients may be masked"
        ]
    return []


def _radius(inputs: SanityInputs, attack: AttackOptions, white: np.ndarray) -> list[str]:
    """Accuracy must not rise with the radius, and must end at 0 where the ball holds every image."""
    found, before, radius = [], white, inputs.eps
    broken_nowhere = white.copy()
    for factor in (2, 4):
        after = inputs.correct(f"pgd-{factor}", attack, factor * inputs.eps)
        test = mcnemar(after, before)
        if test.only_a > test.only_b and test.p / 2 < _LEVEL:
            found.append(
                f"accuracy rises from {before.mean():.1%} to {after.mean():.1%} when eps grows from"
                f" {radius * 255:g}/255 to {factor * inputs.eps * 255:g}/255: the attack fails"
            )
        broken_nowhere &= after
        before, radius = after, factor * inputs.eps
    everything = 1.0 if isinstance(inputs.ball(0.0), Linf) else math.sqrt(inputs.x[0].numel())
    options = REGISTRY.options("pgd", steps=max(inputs.steps, 20), step_size_255=everything / 10 * 255)
    broken_nowhere &= inputs.correct("pgd-unbounded", options, everything)
    if broken_nowhere.mean() > _LEFT:
        found.append(
            f"an attack that may change every pixel to anything leaves {broken_nowhere.mean():.1%} of the examples"
            " correct instead of none: gradients are masked, or the prediction does not depend on the image"
        )
    return found


def _noise(inputs: SanityInputs, natural: np.ndarray, white: np.ndarray) -> list[str]:
    """A random perturbation of full length must break far fewer examples than PGD."""
    threat = inputs.ball(inputs.eps)
    stream = torch_stream(inputs.seed, "sanity/noise", device=inputs.x.device)
    draw = torch.empty_like(inputs.x).normal_(generator=stream)
    noisy = threat.project(inputs.x + threat.step(draw, inputs.eps), inputs.x)
    with torch.no_grad():
        right = predictions(inputs.model, noisy, inputs.chunk) == inputs.y
    by_noise, by_attack = int((natural & ~right.cpu().numpy()).sum()), int((natural & ~white).sum())
    if by_noise >= max(_NOISE, _PART * by_attack):
        return [f"random noise breaks {by_noise} examples, PGD of the same length {by_attack}: PGD finds little more"]
    return []


def _gradients(inputs: SanityInputs) -> list[str]:
    """The loss has a gradient at the images, and more steps along it do not lead to less of it."""
    found, part, labels = [], inputs.x[: inputs.chunk], inputs.y[: inputs.chunk]
    gradient = input_gradient(inputs.model, part, labels, cross_entropy)
    zero = int((gradient.flatten(1).abs().amax(1) == 0).sum())
    if zero > _ZERO * len(part):
        found.append(f"the loss has no gradient at all at {zero} of {len(part)} images: gradient attacks cannot work")
    losses = [_mean_loss(inputs, part, labels, steps) for steps in (max(1, inputs.steps // 4), inputs.steps)]
    if losses[1] < losses[0] * (1 - _FALL):
        found.append(f"the mean loss falls from {losses[0]:.3g} to {losses[1]:.3g} with four times the steps of PGD")
    return found


def _mean_loss(inputs: SanityInputs, x: Tensor, y: Tensor, steps: int) -> float:
    threat = inputs.ball(inputs.eps)
    stream = torch_stream(inputs.seed, "sanity/loss", device=x.device)
    point = pgd(inputs.model, x, y, threat=threat, step_size=inputs.eps / 4, steps=steps, generator=stream)
    with torch.no_grad():
        return float(cross_entropy(inputs.model(point), y).mean())


@torch.no_grad()
def _randomness(inputs: SanityInputs) -> list[str]:
    """The same images give the same logits."""
    part = inputs.x[: inputs.chunk]
    once, again = inputs.model(part), inputs.model(part)
    if float((once - again).abs().max()) > _REPEATED * float(once.abs().max()):
        return ["the same images give different logits: a randomised model needs an attack that averages over noise"]
    return []
