import math

import numpy as np
import pytest
from sklearn.metrics import mutual_info_score

from sglr.information.entropy import (
    contingency,
    cross_entropy,
    entropy,
    label_entropy,
    mutual_information,
    mutual_information_bias,
)


def symmetric_channel(num_classes: int, error: float, n: int) -> np.ndarray:
    """Counts of (sent, received): uniform input, each wrong class received with probability error / (C - 1)."""
    table = np.full((num_classes, num_classes), error / (num_classes - 1))
    np.fill_diagonal(table, 1 - error)
    return np.round(table * n / num_classes).astype(int)


def channel_information(num_classes: int, error: float) -> float:
    """I = log C - h(e) - e log(C - 1), nats."""
    h = -error * math.log(error) - (1 - error) * math.log(1 - error)
    return math.log(num_classes) - h - error * math.log(num_classes - 1)


@pytest.mark.parametrize("num_classes", [2, 3, 10])
def test_entropy_of_the_uniform_distribution_is_log_c(known, num_classes):
    known(lambda: entropy(np.full((4, num_classes), 1 / num_classes)).mean(), math.log(num_classes), 1e-12)


def test_entropy_of_a_certain_row_is_zero_and_of_a_mixed_one_by_hand():
    rows = [[1.0, 0, 0], [0.5, 0.25, 0.25]]
    np.testing.assert_allclose(entropy(rows), [0, 1.5 * math.log(2)], rtol=0, atol=1e-15)
    assert math.copysign(1, entropy(rows)[0]) == 1


def test_cross_entropy_is_entropy_plus_divergence(known):
    t, q = [[0.7, 0.3, 0.0]], [[0.2, 0.5, 0.3]]
    expected = -(0.7 * math.log(0.2) + 0.3 * math.log(0.5))
    logs = [[math.log(value) for value in q[0]]]
    assert cross_entropy(t, logs)[0] == pytest.approx(expected, abs=1e-14)
    divergence = 0.7 * math.log(0.7 / 0.2) + 0.3 * math.log(0.3 / 0.5)
    assert cross_entropy(t, logs)[0] - entropy(t)[0] == pytest.approx(divergence, abs=1e-14)
    known(lambda: cross_entropy(t, logs)[0], expected, 1e-14, nats=False)
    with pytest.raises(ValueError, match="adding up to 1"):
        cross_entropy(t, np.log2(q))


def test_cross_entropy_is_infinite_only_where_the_target_has_weight():
    logs = [[0.0, -math.inf]]
    assert cross_entropy([[1.0, 0.0]], logs)[0] == 0
    assert cross_entropy([[0.5, 0.5]], logs)[0] == math.inf


@pytest.mark.parametrize(("num_classes", "error"), [(2, 0.1), (4, 0.3), (10, 0.27)])
def test_mutual_information_of_a_symmetric_channel(known, num_classes, error):
    table = symmetric_channel(num_classes, error, 90_000_000)
    known(lambda: mutual_information(table), channel_information(num_classes, error), 1e-6)


def test_mutual_information_is_zero_for_independent_and_label_entropy_for_equal_labels():
    first, second = np.repeat([0, 1, 2], 4), np.tile([0, 0, 1, 2], 3)
    assert mutual_information(contingency(first, second, 3)) == 0
    assert mutual_information(contingency(second, second, 4)) == pytest.approx(label_entropy(second), abs=1e-15)
    assert label_entropy(second) == pytest.approx(1.5 * math.log(2), abs=1e-15)


def test_mutual_information_against_scikit_learn():
    rng = np.random.default_rng(0)
    true = rng.integers(0, 7, 300)
    guess = np.where(rng.random(300) < 0.6, true, rng.integers(0, 7, 300))
    ours = mutual_information(contingency(guess, true, 7))
    assert ours == pytest.approx(mutual_info_score(guess, true), rel=1e-10)


def test_stated_bias_is_the_mean_of_the_plug_in_estimate_for_independent_labels():
    rng = np.random.default_rng(0)
    tables = [contingency(rng.integers(0, 5, 400), rng.integers(0, 5, 400), 5) for _ in range(400)]
    mean = np.mean([mutual_information(table) for table in tables])
    # 2 N I is about chi-squared with 16 degrees of freedom: standard error of the mean 0.00035.
    assert mean == pytest.approx(16 / 800, abs=0.0015)
    assert mutual_information_bias(tables[0]) == 16 / 800


def test_bias_counts_only_classes_that_occur():
    assert mutual_information_bias(contingency([0, 0, 1, 1], [0, 0, 1, 1], 10)) == 1 / 8


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[0.5, 0.6]], "adding up to 1"),
        ([[1.5, -0.5]], "entries in"),
        ([[float("nan"), 1.0]], "entries in"),
        ([0.5, 0.5], "shape"),
        (np.empty((0, 3)), "at least one row"),
    ],
)
def test_rows_that_are_not_probabilities_are_refused(rows, message):
    with pytest.raises(ValueError, match=message):
        entropy(rows)


def test_labels_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"0\.\.2"):
        contingency([0, 3], [0, 1], 3)
    with pytest.raises(ValueError, match="second must be 2 whole numbers"):
        contingency([0, 1], [0, 1, 2], 3)
    with pytest.raises(ValueError, match="not all 0"):
        mutual_information(np.zeros((2, 2)))
    with pytest.raises(ValueError, match="has two dimensions and counts"):
        mutual_information([[2, -1], [1, 2]])
    with pytest.raises(ValueError, match="same shape"):
        cross_entropy([[0.5, 0.5]], [[0.0, -math.inf, -math.inf]])


def test_of_independent_labels_nothing_is_shared_and_never_less():
    rng = np.random.default_rng(0)
    for _ in range(200):
        table = np.outer(rng.integers(1, 9, 4), rng.integers(1, 9, 5))
        assert 0 <= mutual_information(table) < 1e-12
