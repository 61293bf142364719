import math

import numpy as np
import pytest

from sglr.information.bootstrap import mean_interval, ratio_interval
from sglr.random import numpy_stream


def test_width_for_a_mean_is_that_of_the_normal_approximation():
    values = numpy_stream(0, "values").normal(3, 2, 1000)
    found = mean_interval(values, numpy_stream(1, "bootstrap"), resamples=4000)
    half = 1.96 * values.std() / math.sqrt(1000)
    # Percentiles of 4000 replicates: about 3% of the half-width each.
    assert found["low"] == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert found["high"] == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_ratio_redraws_pairs():
    wholes = numpy_stream(0, "wholes").uniform(1, 5, 200)
    found = ratio_interval(0.3 * wholes, wholes, numpy_stream(1, "bootstrap"))
    # Proportional parts: every resample of pairs has the same ratio, of parts alone it would not.
    assert found["low"] == pytest.approx(0.3, abs=1e-12)
    assert found["high"] == pytest.approx(0.3, abs=1e-12)


def test_draws_come_from_the_stream_alone_and_do_not_depend_on_chunks(monkeypatch):
    values = np.arange(50.0)
    found = mean_interval(values, numpy_stream(0, "a"))
    assert found == mean_interval(values, numpy_stream(0, "a"))
    assert found != mean_interval(values, numpy_stream(0, "b"))
    monkeypatch.setattr("sglr.information.bootstrap._CELLS", 170)
    assert found == mean_interval(values, numpy_stream(0, "a"))


def test_nothing_to_average_is_refused():
    with pytest.raises(ValueError, match="no values"):
        mean_interval([], numpy_stream(0, "a"))
    with pytest.raises(ValueError, match="denominators"):
        ratio_interval([0.0, 0.0], [0.0, 0.0], numpy_stream(0, "a"))
