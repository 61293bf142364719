"""Temperature scaling."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from sglr.information import calibration, temperature


@pytest.fixture(scope="module")
def calibrated():
    """Logits (N, C) and labels drawn from their softmax: calibrated by construction."""
    rng = np.random.default_rng(0)
    z = rng.standard_normal((20000, 5)) * 2
    log_probs = z - np.log(np.exp(z).sum(1, keepdims=True))
    labels = (rng.random((20000, 1)) > np.exp(log_probs).cumsum(1)).sum(1).clip(max=4)
    return log_probs, labels


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_logits_that_are_too_large_by_a_factor_have_it_as_their_temperature(calibrated, factor):
    log_probs, labels = calibrated
    found = temperature.fit(temperature.scaled(log_probs, 1 / factor), labels)
    assert found.value == pytest.approx(factor, rel=0.03)
    assert not found.at_bound


def test_the_minimum_is_that_of_scipy(calibrated):
    log_probs, labels = calibrated
    wrong = temperature.scaled(log_probs, 0.4)

    def loss(t):
        return calibration.nll(temperature.scaled(wrong, t), labels).mean()

    assert temperature.fit(wrong, labels).value == pytest.approx(
        minimize_scalar(loss, bounds=(0.1, 10), method="bounded", options={"xatol": 1e-8}).x, rel=1e-4
    )


def test_scaling_mends_the_calibration_and_no_prediction(calibrated):
    log_probs, labels = calibrated
    wrong = temperature.scaled(log_probs, 0.3)
    mended = temperature.scaled(wrong, temperature.fit(wrong, labels).value)
    assert calibration.ece(np.exp(wrong), labels) > 0.1
    assert calibration.ece(np.exp(mended), labels) < 0.02
    assert (mended.argmax(1) == wrong.argmax(1)).all()


def test_without_a_minimum_the_end_of_the_range_is_said():
    sure = np.log(np.array([[0.9, 0.1], [0.2, 0.8]]))
    assert temperature.fit(sure, [0, 1]) == temperature.Temperature(pytest.approx(0.01, rel=0.01), True)
    assert temperature.fit(sure, [1, 0]).at_bound


def test_equal_probabilities_are_left_alone():
    assert temperature.fit(np.full((8, 4), -np.log(4)), np.arange(8) % 4) == temperature.Temperature(1.0, False)


def test_predictions_no_better_than_chance_end_at_the_top_of_the_range():
    log_probs = np.log(np.array([[0.9, 0.1]] * 4))
    assert temperature.fit(log_probs, [0, 0, 1, 1]) == temperature.Temperature(100.0, True)


@pytest.mark.parametrize("share", [0.6, 0.9, 0.999])
def test_two_classes_by_hand(share):
    """Always logits (k, 0), right in a share p of cases: the best k / T is log(p / (1 - p))."""
    n, k = 1000, 5.0
    log_probs = temperature.scaled(np.tile([-np.log1p(np.exp(-k)), -k - np.log1p(np.exp(-k))], (n, 1)), 1.0)
    labels = (np.arange(n) >= round(share * n)).astype(int)
    assert temperature.fit(log_probs, labels).value == pytest.approx(k / np.log(share / (1 - share)), rel=1e-8)


def test_certainty_that_no_temperature_mends_is_refused():
    with pytest.raises(ValueError, match="1 labels have probability 0"):
        temperature.fit([[0.0, -np.inf], [0.0, -np.inf]], [0, 1])
    # Right and certain, on the other hand, says nothing of T: the rest decides, 9 of 10 right by hand.
    certain = np.vstack([[[0.0, -np.inf]], np.tile(np.log([[0.8, 0.2]]), (10, 1))])
    found = temperature.fit(certain, [0] * 10 + [1])
    assert found.value == pytest.approx(np.log(4) / np.log(9), rel=1e-8)


@pytest.mark.parametrize("wrong", [0.0, -1.0, np.nan, np.inf])
def test_temperatures_that_are_none_are_refused(wrong):
    with pytest.raises(ValueError, match="finite and above 0"):
        temperature.scaled([[0.0, -np.inf]], wrong)


def test_predictions_so_right_that_the_slope_is_zero_are_at_the_bound():
    found = temperature.fit(np.array([[0.0, -800.0], [-800.0, 0.0]]), [0, 1])
    assert (found.value, found.at_bound) == (0.01, True)
