"""What n samples reveal of I(X; T): bounds on the information between a sample's index and its noisy features.

T = h + N(0, s^2 I) with the index drawn uniformly is a mixture of N Gaussians. Kolchinsky & Tracey (2017) bound the
mixture's entropy by pairwise divergences; with d the distance of two feature vectors,

    lower: kernel exp(-d^2 / 8 s^2) (Chernoff),   upper: kernel exp(-d^2 / 2 s^2) (Kullback-Leibler),
    bound = -(1/N) sum_i log (1/N) sum_j kernel_ij.

Both saturate at log N, where they say only that the samples can be told apart, and both depend on s, which is
therefore swept and given relative to the layer's own spread. A network without noise has infinite I(X; T); the noise is
part of the question. **Reconstruction**: the paper's own estimator is not published.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from sglr.information.checks import Floats

# A bound within this part of log N is saturated.
SATURATED = 0.01


@dataclass(frozen=True)
class IndexInformation:
    """Bounds in nats for one noise level, noise = s / spread, deviation = s; the contributions (N,) average to them."""

    noise: float
    deviation: float
    lower: float
    upper: float
    lower_contributions: Floats
    upper_contributions: Floats

    @property
    def saturated(self) -> bool:
        """Whether the upper bound is within 1% of log N: the sample is too small, or the noise too weak, to tell."""
        return self.upper >= (1 - SATURATED) * math.log(len(self.upper_contributions))


def spread(features: ArrayLike) -> float:
    """Root mean squared distance of features (N, D) from their mean; dimensions that are constant add nothing."""
    return float(np.sqrt(_checked(features).var(0).sum()))


def index_information(features: ArrayLike, noise: Sequence[float], *, chunk: int = 1024) -> list[IndexInformation]:
    """Bounds for every noise level in ``noise``, relative to the spread of features (N, D), N >= 2.

    chunk: rows of the distance matrix held at once, memory is chunk x N. All features equal: both bounds are 0. Raises
    ValueError for features that are not finite and (N, D), fewer than two examples, or noise that is not above 0.
    """
    h = _checked(features)
    if len(noise) == 0 or not all(0 < level < math.inf for level in noise):
        raise ValueError(f"noise levels must be finite and above 0, found {list(noise)}")
    scale = spread(h)
    deviations = [level * scale for level in noise]
    n = len(h)
    found = np.zeros((len(noise), 2, n))
    if scale > 0:
        for rows, squared in _squared_distances(h, chunk):
            for level, deviation in enumerate(deviations):
                for kind, divisor in enumerate((8.0, 2.0)):
                    kernel = np.exp(-squared / (divisor * deviation**2))
                    found[level, kind, rows] = -np.log(kernel.mean(1))
    return [
        IndexInformation(level, deviation, float(low.mean()), float(high.mean()), low + 0.0, high + 0.0)
        for level, deviation, (low, high) in zip(noise, deviations, found, strict=True)
    ]


def _squared_distances(h: Floats, chunk: int) -> Iterator[tuple[slice, Floats]]:
    """Rows of the matrix (N, N) of squared distances, some at a time; centred first, to keep digits."""
    centred = h - h.mean(0)
    squares = np.square(centred).sum(1)
    for start in range(0, len(h), chunk):
        rows = slice(start, start + chunk)
        squared = squares[rows, None] + squares[None] - 2 * centred[rows] @ centred.T
        part = np.maximum(squared, 0)
        own = np.arange(part.shape[0])
        part[own, start + own] = 0
        yield rows, part


def _checked(features: ArrayLike) -> Floats:
    h = np.asarray(features, dtype=np.float64)
    if h.ndim != 2 or len(h) < 2 or not np.isfinite(h).all():
        raise ValueError(f"features must be finite and (N, D) with N >= 2, found shape {h.shape}")
    return h
