"""Bootstrap intervals of means, and of biased statistics."""

import math

import numpy as np
import pytest
from scipy import stats

from sglr.information.bootstrap import counts_interval, difference_interval, groups_interval, mean_interval
from sglr.information.calibration import ece, residuals
from sglr.information.entropy import contingency, mutual_information
from sglr.information.findings import Findings
from sglr.random import numpy_stream


@pytest.fixture(scope="module")
def skewed():
    return np.random.default_rng(0).exponential(size=200)


def test_means_as_scipy_does_them(skewed):
    found = mean_interval(skewed, numpy_stream(0, "a"), resamples=2000)
    reference = scipys(lambda index: skewed[index].mean(), len(skewed), "percentile")
    # Ends of 2000 replicates vary by 1 or 2% of the width.
    assert found == pytest.approx(reference, abs=0.05 * (reference["high"] - reference["low"]))


def scipys(statistic, n, method):
    """Ends of scipy's interval of 2000 resamples, of a statistic of indices (n,)."""
    found = stats.bootstrap(
        (np.arange(n),), statistic, n_resamples=2000, method=method, vectorized=False, rng=np.random.default_rng(1)
    ).confidence_interval
    return {"low": found.low, "high": found.high}


def test_difference_of_independent_means_has_the_width_of_both(skewed):
    other = np.random.default_rng(1).normal(3, 2, 800)
    found = difference_interval(skewed, other, numpy_stream(0, "a"), resamples=4000)
    middle, half = skewed.mean() - other.mean(), 1.96 * math.hypot(skewed.std() / math.sqrt(200), 2 / math.sqrt(800))
    # Percentiles of 4000 replicates: about 3% of the half-width; the sample's own deviation: 3%.
    assert found["low"] == pytest.approx(middle - half, abs=0.12 * half)
    assert found["high"] == pytest.approx(middle + half, abs=0.12 * half)


@pytest.fixture(scope="module")
def predictions():
    """Sure of one of two classes by 0.5 to 1, right 0.1 less often than that: ECE 0.1."""
    rng = np.random.default_rng(2)
    sure = rng.uniform(0.6, 1, 400)
    return np.stack([sure, 1 - sure], 1), (rng.random(400) >= sure - 0.1).astype(int)


def test_calibration_error_many_resamples_at_a_time_is_the_plain_one(predictions):
    probs, labels = predictions
    values, bins = residuals(probs, labels)
    found = groups_interval(values, bins, numpy_stream(0, "a"), resamples=300)
    stream = numpy_stream(0, "a")
    errors = [ece(probs[index], labels[index]) for index in (stream.integers(400, size=400) for _ in range(300))]
    low, high = np.quantile(errors, [0.025, 0.975])
    # Mirrored at the estimate.
    assert found == pytest.approx({"low": 2 * ece(*predictions) - high, "high": 2 * ece(*predictions) - low}, abs=1e-12)


def test_information_from_a_table_is_that_from_examples():
    rng = np.random.default_rng(3)
    true = rng.integers(0, 4, 500)
    given = np.where(rng.random(500) < 0.6, true, rng.integers(0, 4, 500))
    by_table = counts_interval(contingency(given, true, 4), mutual_information, numpy_stream(0, "a"), resamples=2000)
    by_example = scipys(lambda index: mutual_information(contingency(given[index], true[index], 4)), 500, "basic")
    # Ends of 2000 replicates: about 4% of the width each.
    assert by_table == pytest.approx(by_example, abs=0.15 * (by_table["high"] - by_table["low"]))


def test_intervals_of_plug_in_information_cover_the_truth():
    """Ten classes, a third of 400 labels wrong: bias 0.1 nats, deviation 0.03. Percentiles cover in 7% of samples."""
    e, rng, hits = 0.36, np.random.default_rng(4), 0
    channel = (1 - e) * np.eye(10) + e * (1 - np.eye(10)) / 9
    truth = math.log(10) + e * math.log(e) + (1 - e) * math.log(1 - e) - e * math.log(9)
    for trial in range(40):
        table = rng.multinomial(400, channel.ravel() / 10).reshape(10, 10)
        found = counts_interval(table, mutual_information, numpy_stream(trial, "a"), resamples=200)
        hits += found["low"] <= truth <= found["high"]
    # About 0.9 of 40, with a deviation of 1.9.
    assert hits >= 28


def test_intervals_of_the_calibration_error_cover_the_truth():
    """400 examples off by 0.05 everywhere: the error comes out as 0.066. Percentiles cover in 55% of samples."""
    rng, hits = np.random.default_rng(5), 0
    for trial in range(60):
        sure = rng.uniform(0.5, 0.95, 400)
        labels = (rng.random(400) >= sure - 0.05).astype(int)
        values, bins = residuals(np.stack([sure, 1 - sure], 1), labels)
        found = groups_interval(values, bins, numpy_stream(trial, "a"), resamples=200)
        hits += found["low"] <= 0.05 <= found["high"]
    # About 0.88 of 60, with a deviation of 2.5; percentiles would reach about 33.
    assert hits >= 44


def test_a_share_of_wholes_that_may_vanish_has_no_interval():
    found = Findings(0)
    found.share("share", [0.0, 1.0], [0.0, 2.0])
    assert found.numbers == {"share": 0.5}
    assert found.intervals == {}


def test_the_size_of_a_difference_is_that_of_the_smaller_sample():
    found = Findings(0)
    found.difference("gap", [1.0, 0.0, 1.0, 1.0], [0.0, 1.0])
    assert (found.numbers["gap"], found.sizes["gap"]) == (0.25, 2)
