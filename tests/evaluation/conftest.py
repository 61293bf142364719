"""AutoAttack in less time."""

import pytest


@pytest.fixture
def short(monkeypatch):
    """AutoAttack with fewer queries and FAB steps: the same code in a tenth of the time."""
    from pyautoattack import AutoAttack

    set_version = AutoAttack._set_version

    def shortened(self, version="standard"):
        set_version(self, version)
        self.square.n_queries, self.fab.n_iter = 300, 10

    monkeypatch.setattr(AutoAttack, "_set_version", shortened)
