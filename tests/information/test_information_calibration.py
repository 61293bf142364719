import math

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, log_loss

from sglr.information.calibration import brier, ece, nll, reliability_table


def predictor(confidence: float, accuracy: float, n: int = 100) -> tuple[np.ndarray, np.ndarray]:
    """Predicts class 0 of three with ``confidence`` every time and is right in ``accuracy`` of n cases."""
    rest = (1 - confidence) / 2
    right = round(accuracy * n)
    return np.tile([confidence, rest, rest], (n, 1)), np.array([0] * right + [1] * (n - right))


@pytest.mark.parametrize("confidence", [0.4, 0.55, 0.8, 1.0])
def test_ece_of_a_calibrated_predictor_is_zero(confidence):
    assert ece(*predictor(confidence, confidence)) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("confidence", "accuracy"), [(0.9, 0.5), (0.5, 0.9), (1.0, 0.2)])
def test_ece_of_a_miscalibrated_predictor_is_the_distance(known, confidence, accuracy):
    probs, labels = predictor(confidence, accuracy)
    known(lambda: ece(probs, labels), abs(confidence - accuracy), 1e-12, nats=False)


def test_ece_weighs_intervals_by_their_examples(known):
    # 100 examples off by 0.4 and 300 off by 0.1, in opposite directions: they must not cancel.
    over, under = predictor(0.9, 0.5, 100), predictor(0.6, 0.7, 300)
    probs, labels = np.concatenate([over[0], under[0]]), np.concatenate([over[1], under[1]])
    known(lambda: ece(probs, labels, bins=10), (100 * 0.4 + 300 * 0.1) / 400, 1e-12, nats=False)
    assert ece(probs, labels, bins=1) == pytest.approx(abs((0.5 + 3 * 0.7) / 4 - (0.9 + 3 * 0.6) / 4), abs=1e-12)


def test_reliability_rows_by_hand():
    probs = np.array([[0.6, 0.4], [0.3, 0.7], [0.75, 0.25], [0.0, 1.0]])
    table = reliability_table(probs, [0, 1, 1, 1], bins=4)
    assert [row["count"] for row in table] == [0, 0, 3, 1]  # 0.75 belongs to (0.5, 0.75]
    assert (table[0]["low"], table[0]["high"]) == (0, 0.25)
    assert table[0]["confidence"] is None
    assert table[0]["accuracy"] is None
    assert table[2]["confidence"] == pytest.approx((0.6 + 0.7 + 0.75) / 3)
    assert table[2]["accuracy"] == pytest.approx(2 / 3)
    assert table[3] == {"bin": 3, "low": 0.75, "high": 1.0, "count": 1, "confidence": 1.0, "accuracy": 1.0}


def test_scores_against_scikit_learn(known):
    rng = np.random.default_rng(0)
    probs, labels = rng.dirichlet(np.ones(5), 200), rng.integers(0, 5, 200)
    known(lambda: nll(np.log(probs), labels).mean(), log_loss(labels, probs, labels=range(5)), 1e-12, nats=False)
    with pytest.raises(ValueError, match="adding up to 1"):
        nll(np.log2(probs), labels)
    expected = brier_score_loss(labels, probs, labels=range(5), scale_by_half=False)
    known(lambda: brier(probs, labels).mean(), expected, 1e-12, nats=False)


def test_scores_by_hand():
    probs = [[0.7, 0.2, 0.1], [0.0, 1.0, 0.0]]
    np.testing.assert_allclose(brier(probs, [1, 1]), [0.49 + 0.64 + 0.01, 0], atol=1e-15)
    logs = [[math.log(0.7), math.log(0.2), math.log(0.1)], [-math.inf, 0.0, -math.inf]]
    np.testing.assert_allclose(nll(logs, [1, 0]), [-math.log(0.2), math.inf])


def test_a_confident_mistake_keeps_a_finite_likelihood():
    # As a probability e^-1000 is 0 in float64.
    assert nll([[0.0, -1000.0]], [1])[0] == 1000


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="bins"):
        ece([[0.5, 0.5]], [0], bins=0)
    with pytest.raises(ValueError, match=r"0\.\.1"):
        brier([[0.5, 0.5]], [2])
    with pytest.raises(ValueError, match="exp\\(log_probs\\)"):
        nll([[0.5, 0.5]], [0])
