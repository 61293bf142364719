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
