"""A plugin of pytest that prints a failure when it happens: a run that is cut off would lose those at its end."""

import pytest


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.failed:
        print(f"\n{report.nodeid} failed ({report.when}):\n{report.longreprtext}", flush=True)
