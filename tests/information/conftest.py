"""Known answers: an estimate must meet one within a tolerance stated in advance, and wrong formulas must miss it."""

from collections.abc import Callable

import numpy as np
import pytest


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``known(compute, expected, tolerance)``: right as it is, wrong with a factor 2 or (nats) log2 for ln."""

    def check(compute: Callable[[], float], expected: float, tolerance: float, *, nats: bool = True) -> None:
        def met(value: float) -> bool:
            return abs(value - expected) <= tolerance

        value = compute()
        assert met(value), f"{value} is not {expected} +- {tolerance}"
        assert not met(2 * value)
        assert not met(value / 2)
        if nats:
            with monkeypatch.context() as patch:
                patch.setattr(np, "log", np.log2)
                assert not met(compute())

    return check
