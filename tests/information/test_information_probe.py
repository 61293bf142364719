import math
from statistics import NormalDist

import numpy as np
import pytest
import torch
from scipy.integrate import trapezoid
from sklearn.linear_model import LogisticRegression

from sglr.information.probe import TooFewExamplesError, fit, probe_information, stratified_folds
from sglr.random import numpy_stream


def probe(features, labels, folds=5, l2=1.0):
    return probe_information(features, labels, folds=folds, l2=l2, generator=numpy_stream(0, "test folds"))


def channel(num_classes: int, error: float, per_class: int) -> tuple[np.ndarray, np.ndarray]:
    """One-hot received symbols and sent classes of a symmetric channel, in exactly its proportions."""
    wrong = round(per_class * error / (num_classes - 1))
    sent, received = [], []
    for a in range(num_classes):
        for b in range(num_classes):
            count = per_class - wrong * (num_classes - 1) if a == b else wrong
            sent += [a] * count
            received += [b] * count
    return np.eye(num_classes)[received], np.array(sent)


@pytest.mark.parametrize(("num_classes", "error"), [(2, 0.1), (4, 0.3)])
def test_symmetric_channel_from_below(known, num_classes, error):
    # I = log C - h(e) - e log(C - 1). The sample has the channel's exact proportions: only the probe's loss is left.
    h = -error * math.log(error) - (1 - error) * math.log(1 - error)
    exact = math.log(num_classes) - h - error * math.log(num_classes - 1)
    x, y = channel(num_classes, error, 3000)
    known(lambda: probe(x, y).information, exact, 0.005)
    assert probe(x, y).information < exact


@pytest.mark.parametrize("shift", [0.5, 1.0])
def test_two_gaussians_by_numerical_integration(known, shift):
    # T ~ N(+-m, 1): I = log 2 - E log(1 + exp(-2 m T)) under N(m, 1); a logistic probe is the true posterior.
    t = np.linspace(shift - 10, shift + 10, 200_001)
    density = np.exp(-((t - shift) ** 2) / 2) / math.sqrt(2 * math.pi)
    exact = math.log(2) - float(trapezoid(density * np.logaddexp(0, -2 * shift * t), t))
    quantiles = np.array([NormalDist().inv_cdf((i + 0.5) / 2000) for i in range(2000)])
    x = np.concatenate([quantiles + shift, quantiles - shift])[:, None]
    y = np.repeat([1, 0], 2000)
    known(lambda: probe(x, y).information, exact, 0.003)


@pytest.fixture(scope="module")
def blobs() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, 300)
    return rng.normal(size=(4, 6))[y] + rng.normal(size=(300, 6)), y


@pytest.mark.parametrize("l2", [0.1, 1.0, 10.0])
def test_fit_against_scikit_learn(blobs, l2):
    x, y = blobs
    weights, bias = fit(torch.from_numpy(x), torch.from_numpy(y), 4, l2)
    reference = LogisticRegression(C=1 / l2, tol=1e-10, max_iter=10_000).fit(x, y)
    np.testing.assert_allclose(weights, reference.coef_, atol=1e-3)
    # Adding a constant to all biases changes nothing: compare them centred.
    np.testing.assert_allclose(bias - bias.mean(), reference.intercept_ - reference.intercept_.mean(), atol=1e-3)
    doubled = LogisticRegression(C=1 / (2 * l2), tol=1e-10, max_iter=10_000).fit(x, y)
    assert not np.allclose(weights, doubled.coef_, atol=1e-3)


def test_cross_fitting_against_scikit_learn(blobs):
    x, y = blobs
    bound = probe(x, y)
    fold = stratified_folds(y, 5, numpy_stream(0, "test folds"))
    log_q = np.empty((len(y), 4))
    for k in range(5):
        train, held_out = fold != k, fold == k
        mean, deviation = x[train].mean(0), x[train].std(0)
        model = LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000).fit((x[train] - mean) / deviation, y[train])
        log_q[held_out] = model.predict_log_proba((x[held_out] - mean) / deviation)
    assert bound.cross_entropy == pytest.approx(-log_q[np.arange(len(y)), y].mean(), abs=1e-3)
    shares = np.bincount(y) / len(y)
    assert bound.label_entropy == pytest.approx(-(shares * np.log(shares)).sum(), abs=1e-12)
    assert bound.information == pytest.approx(bound.label_entropy - bound.cross_entropy, abs=1e-12)
    assert bound.density.mean() == pytest.approx(bound.information, abs=1e-15)


def test_features_without_information_give_a_negative_value_not_zero():
    rng = np.random.default_rng(0)
    bound = probe(rng.normal(size=(100, 20)), np.tile([0, 1], 50))
    assert bound.information < -0.05


def test_scale_shift_and_constant_features_do_not_matter(blobs):
    x, y = blobs
    other = np.hstack([x * 1000 + 7, np.full((len(x), 1), 0.1), np.zeros((len(x), 1))])
    assert probe(other, y).information == pytest.approx(probe(x, y).information, abs=1e-6)


def test_classes_that_do_not_occur_do_not_matter(blobs):
    x, y = blobs
    assert probe(x, y * 3).information == probe(x, y).information


def test_same_stream_same_bytes(blobs):
    assert probe(*blobs).density.tobytes() == probe(*blobs).density.tobytes()


def test_folds_are_stratified_and_even():
    y = np.array([0] * 12 + [1] * 7 + [2] * 2)
    fold = stratified_folds(y, 5, numpy_stream(0, "folds"))
    table = np.array([[((y == c) & (fold == k)).sum() for k in range(5)] for c in range(3)])
    assert table.sum(1).tolist() == [12, 7, 2]
    assert (table.max(1) - table.min(1) <= 1).all()
    assert np.ptp(table.sum(0)) <= 1


@pytest.mark.parametrize("labels", [[0, 0, 0, 0, 0, 0], [0, 0, 0, 1, 1, 2], [0, 0, 1, 1]])
def test_too_few_examples_are_named(labels):
    with pytest.raises(TooFewExamplesError, match="needs at least 5 examples, two classes, and two examples of each"):
        probe(np.zeros((len(labels), 2)), labels)


def test_bad_input_is_refused(blobs):
    x, y = blobs
    with pytest.raises(ValueError, match="finite"):
        probe(np.where(x > 1, np.nan, x), y)
    with pytest.raises(ValueError, match="folds"):
        probe(x, y, folds=1)
    with pytest.raises(ValueError, match="l2"):
        probe(x, y, l2=0.0)
