"""Estimators of information on Gaussians of several dimensions, known in closed form or by quadrature.

What is compared, and how near it must come, stands in each test; wrong factors and logarithms must miss it (``known``).
"""

import math

import numpy as np
import pytest
from scipy import integrate, stats

from sglr.information.entropy import mutual_information
from sglr.information.index_information import index_information, spread
from sglr.information.label_information import density
from sglr.information.label_noise import channel, channel_entropy
from sglr.information.probe import probe_information
from sglr.random import numpy_stream


def correlated(dimensions: int, rho: float) -> np.ndarray:
    """Covariance with variance 1 and correlation rho between all pairs."""
    return (1 - rho) * np.eye(dimensions) + rho


def two_class_information(distance: float) -> float:
    """I(T; Y) of two equally likely Gaussians at a Mahalanobis distance: only the axis between them matters."""

    def lost(t: float) -> float:
        return float(stats.norm.pdf(t, distance / 2) * np.logaddexp(0, -distance * t))

    value, _ = integrate.quad(lost, distance / 2 - 12, distance / 2 + 12)
    return math.log(2) - value


@pytest.mark.parametrize(("dimensions", "rho"), [(2, 0.0), (2, 0.8), (5, 0.5), (10, 0.3)])
def test_probe_on_two_gaussians_with_a_common_covariance(known, dimensions, rho):
    """The posterior is logistic in T, so the probe's bound is tight but for (D + 1) / 2n = 0.0014 of fitting.

    N = 4000: the deviation of the sample's own information is 0.5 / sqrt(4000) = 0.008; tolerance 0.025.
    """
    covariance, rng = correlated(dimensions, rho), numpy_stream(0, f"gaussians {dimensions} {rho}")
    shift = np.zeros(dimensions)
    shift[0] = 1.2
    y = np.repeat([0, 1], 2000)
    x = rng.multivariate_normal(np.zeros(dimensions), covariance, size=4000) + y[:, None] * shift
    truth = two_class_information(math.sqrt(shift @ np.linalg.solve(covariance, shift)))
    known(
        lambda: probe_information(x, y, folds=5, l2=1.0, generator=numpy_stream(0, "folds")).information, truth, 0.025
    )


def test_probe_on_three_gaussians_in_the_plane(known):
    """Means on a triangle, unit variance: E log posterior by a grid over the plane. N = 4500, tolerance 0.025."""
    angles = 2 * np.pi * np.arange(3) / 3
    means = 1.5 * np.stack([np.cos(angles), np.sin(angles)], 1)
    axis = np.linspace(-8, 8, 401)
    grid = np.stack(np.meshgrid(axis, axis), -1)
    logs = -0.5 * np.square(grid[:, :, None] - means).sum(-1) - math.log(2 * math.pi)
    mixture = np.logaddexp.reduce(logs, axis=2) - math.log(3)
    truth = float((np.exp(logs[..., 0]) * (logs[..., 0] - mixture)).sum() * (axis[1] - axis[0]) ** 2)
    y = np.repeat(np.arange(3), 1500)
    x = numpy_stream(0, "triangle").normal(size=(4500, 2)) + means[y]
    known(
        lambda: probe_information(x, y, folds=5, l2=1.0, generator=numpy_stream(0, "folds")).information, truth, 0.025
    )


@pytest.mark.parametrize("rho", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("dimensions", [1, 2])
def test_index_bounds_enclose_the_information_of_correlated_gaussians(dimensions, rho):
    """corr(X, T) = rho per dimension: I(X; T) = -d/2 log(1 - rho^2).

    I(index; T) of a sample is below I(X; T) on average, so the lower bound must not exceed it by more than 0.03; that
    the upper one is not below it is no theorem, but so with N = 2000 where log N is far (7.6 against 3.3 at most).
    """
    x = numpy_stream(0, "correlated").standard_normal((2000, dimensions))
    truth = -dimensions / 2 * math.log(1 - rho**2)
    (found,) = index_information(x, [math.sqrt(1 / rho**2 - 1) / spread(x)])
    assert found.lower <= truth + 0.03
    assert found.upper >= truth - 0.03


@pytest.mark.parametrize(("dimensions", "rho"), [(2, 0.0), (2, 0.9), (3, 0.5)])
@pytest.mark.parametrize(("kind", "factor"), [("lower", 4), ("upper", 1)])
def test_index_bounds_of_correlated_features_in_closed_form(known, dimensions, rho, kind, factor):
    """Features N(0, S), eigenvalues l of S, v = 4 s^2 (lower) or s^2 (upper), N to infinity:

    -E log E' exp(-|x - x'|^2 / 2v) = sum over l of (log(1 + l / v) + l / (l + v)) / 2. N = 3000, tolerance 0.05: the
    deviation of the mean contribution is about sqrt(d / 2N) = 0.02, and log N = 8 is far from all values here.
    """
    covariance, s = correlated(dimensions, rho), 0.8
    x = numpy_stream(1, "features").multivariate_normal(np.zeros(dimensions), covariance, size=3000)
    v, eigenvalues = factor * s**2, np.linalg.eigvalsh(covariance)
    expected = float(0.5 * (np.log1p(eigenvalues / v) + eigenvalues / (eigenvalues + v)).sum())
    known(lambda: getattr(index_information(x, [s / spread(x)])[0], kind), expected, 0.05)


def test_index_bounds_do_not_depend_on_scale_shift_or_rotation():
    rng = numpy_stream(2, "features")
    x = rng.normal(size=(200, 6)) * [5, 3, 1, 1, 0.5, 0.1]
    rotation, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    for plain, moved in zip(
        index_information(x, [0.2, 1.0]), index_information(1000 * x @ rotation + 7e4, [0.2, 1.0]), strict=True
    ):
        assert moved.deviation == pytest.approx(1000 * plain.deviation, rel=1e-9)
        assert moved.lower == pytest.approx(plain.lower, rel=1e-7)
        assert moved.upper == pytest.approx(plain.upper, rel=1e-7)


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.8, 1.0])
def test_label_bound_where_weights_hold_a_blurred_copy_of_the_labels(known, kept):
    """Weights w_i = y_i with probability ``kept``, else any class: I(w_i; y_i | x_i) is that of a finite table.

    The best prediction, p(y_i | x_i, w_i), makes the bound tight (exactly, in expectation: no sampling here); a
    prediction that trusts w_i too much pays its divergence, and the bound stays below the truth.
    """
    num_classes = 4
    given = channel("symmetric-other", 0.4, num_classes)[0]  # of an example whose true class is 0
    copy = kept * np.eye(num_classes) + (1 - kept) / num_classes
    joint = given[:, None] * copy  # (y, w)
    truth, entropy = mutual_information(joint), channel_entropy(channel("symmetric-other", 0.4, num_classes), [0])

    def bound(posterior: np.ndarray) -> float:
        cost = np.zeros_like(joint)
        cost[joint > 0] = -np.log(posterior[joint > 0])
        return float((density(cost.ravel(), entropy) * joint.ravel()).sum())

    best = joint / joint.sum(0)
    if kept:
        known(lambda: bound(best), truth, 1e-12, nats=False)
    else:
        assert bound(best) == pytest.approx(0, abs=1e-12)
    trusting = 0.5 * best + 0.5 * (0.97 * np.eye(num_classes) + 0.03 / num_classes)
    assert bound(trusting) < truth
    # The identity CE = H - I + KL, with the divergence computed on its own.
    divergence = float((joint * np.log(np.where(joint > 0, best / trusting, 1))).sum())
    assert entropy - bound(trusting) == pytest.approx(entropy - truth + divergence, abs=1e-12)


@pytest.mark.parametrize("wrong", ["bits", "adversarial"])
def test_label_bound_fails_where_it_must(wrong):
    """Weights that know nothing, predicting the channel: 0 nats. In bits, or with images made from y, it is not."""
    rows = channel("symmetric-other", 0.4, 4)
    true = numpy_stream(0, "true").integers(0, 4, 20_000)
    given = np.array([0, 1, 2, 3])[(numpy_stream(0, "noise").random((20_000, 1)) > rows[true].cumsum(1)).sum(1)]
    entropy, nll = channel_entropy(rows, true), -np.log(rows[true, given])
    # Deviation of the mean: 0.75 / sqrt(20000) = 0.005.
    assert density(nll, entropy).mean() == pytest.approx(0, abs=0.02)
    altered = nll / math.log(2) if wrong == "bits" else -np.log(0.5 * rows[true, given] + 0.5)
    assert abs(density(altered, entropy).mean()) > 0.2
