"""Pairwise bounds of the information between index and noisy features."""

import math

import numpy as np
import pytest
from scipy import integrate, stats

from sglr.information.index_information import index_information, spread


def mixture_information(points, deviation):
    """I(index; T) of equally likely points in one dimension with Gaussian noise, by numerical integration."""

    def density(t):
        return float(np.mean(stats.norm.pdf(t, points, deviation)))

    low, high = min(points) - 10 * deviation, max(points) + 10 * deviation
    entropy, _ = integrate.quad(lambda t: -density(t) * math.log(density(t) or 1), low, high, limit=500)
    return entropy - 0.5 * math.log(2 * math.pi * math.e * deviation**2)


@pytest.mark.parametrize("noise", [0.2, 0.5, 1.0, 3.0])
def test_the_true_value_lies_between_the_bounds(noise):
    points = np.array([-1.0, -0.2, 0.1, 0.5, 2.0])
    (found,) = index_information(points[:, None], [noise])
    truth = mixture_information(points, found.deviation)
    assert found.lower - 1e-6 <= truth <= found.upper + 1e-6
    assert found.upper - found.lower < 0.6


def test_two_points_by_hand(known):
    points = np.array([[0.0, 0.0], [3.0, 4.0]])  # each is 2.5 from their mean
    s = 0.5 * spread(points)
    assert spread(points) == pytest.approx(2.5)
    for kind, divisor in (("lower", 8), ("upper", 2)):
        expected = -math.log((1 + math.exp(-25 / (divisor * s**2))) / 2)
        known(lambda kind=kind: getattr(index_information(points, [0.5])[0], kind), expected, 1e-9)


def test_points_far_apart_saturate_and_equal_ones_hold_nothing():
    (apart,) = index_information(np.arange(50.0)[:, None], [0.001])
    assert apart.lower == pytest.approx(math.log(50))
    assert apart.saturated is True
    (equal,) = index_information(np.ones((50, 3)), [0.1])
    assert (equal.lower, equal.upper, equal.saturated) == (0, 0, False)
    (close,) = index_information(np.arange(50.0)[:, None], [2.0])
    assert not close.saturated


@pytest.mark.parametrize("dimensions", [1, 2, 4])
def test_gaussian_features(dimensions):
    """X ~ N(0, 1)^d, T = X + N(0, s^2): I(X; T) = d/2 log(1 + 1/s^2), the squared correlation being 1 / (1 + s^2).

    The lower bound must not exceed the truth, nor the upper one fall short of it, by more than 0.05 (N = 2000).
    """
    x = np.random.default_rng(0).standard_normal((2000, dimensions))
    for level in (0.7, 1.5):
        (found,) = index_information(x, [level])
        s = level * math.sqrt(dimensions)
        truth = dimensions / 2 * math.log(1 + 1 / s**2)
        assert found.lower <= truth + 0.05
        assert found.upper >= truth - 0.05
        assert not found.saturated


def test_bounds_of_a_gaussian_in_closed_form(known):
    """-E log E' exp(-(x - x')^2 / 2v) for x, x' ~ N(0, 1): 1/2 log(1 + 1/v) + 1 / (2 (1 + v)), v = 4 s^2 or s^2."""
    x = stats.norm.ppf((np.arange(4000) + 0.5) / 4000)[:, None]
    for kind, factor in (("lower", 4), ("upper", 1)):
        v = factor * spread(x) ** 2
        expected = 0.5 * math.log(1 + 1 / v) + 1 / (2 * (1 + v))
        known(lambda kind=kind: getattr(index_information(x, [1.0])[0], kind), expected, 2e-3)


def test_chunks_make_no_difference():
    x = np.random.default_rng(1).standard_normal((101, 7))
    whole, parts = (index_information(x, [0.3, 1.0], chunk=chunk) for chunk in (500, 10))
    for one, other in zip(whole, parts, strict=True):
        assert one.lower_contributions == pytest.approx(other.lower_contributions, abs=1e-12)
        assert one.lower == pytest.approx(one.lower_contributions.mean())


@pytest.mark.parametrize(
    ("features", "noise"),
    [([[1.0]], [1.0]), ([[1.0], [np.nan]], [1.0]), ([[1.0], [2.0]], [0.0]), ([[1.0], [2.0]], [math.inf])],
)
def test_what_cannot_be_used_is_refused(features, noise):
    with pytest.raises(ValueError, match=r"features|noise"):
        index_information(features, noise)


def test_where_the_features_lie_does_not_matter():
    h = np.random.default_rng(0).normal(size=(30, 3))
    (here,), (far,) = index_information(h, [0.5]), index_information(h + 1e7, [0.5])
    assert far.lower == pytest.approx(here.lower, rel=1e-6)
    assert far.upper == pytest.approx(here.upper, rel=1e-6)
