"""The MLflow UI in a real browser, on the database that ``dvc repro`` left."""

import json
import re
import socket
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from browser import needs_browser, tab
from study_project import Ended, Project

pytestmark = [pytest.mark.slow, needs_browser]
# Curves of a chart: lines that plotly has really drawn.
CURVES = """card => [...card.querySelectorAll(".scatterlayer .trace path.js-line")]
  .map(e => e.getAttribute("d")).filter(d => d && d.length > 20)"""


@pytest.fixture(scope="module")
def shown(first_run: tuple[Project, Ended]) -> Iterator[str]:
    """``sglr ui`` at work; the address it names."""
    project = first_run[0]
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = project.start("sglr", "ui", "--port", str(port), MLFLOW_DISABLE_TELEMETRY="true")
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 120
        while not _answers(address):
            assert process.poll() is None, project.said()
            assert time.monotonic() < deadline, project.said()
            time.sleep(0.5)
        (named,) = re.findall(r"http://\S+", project.said().splitlines()[0])
        yield named
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def server(shown: str) -> str:
    return shown.partition("/#")[0]


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


@pytest.fixture(scope="module")
def runs(first_run: tuple[Project, Ended]) -> dict[str, Any]:
    """The runs by name."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{first_run[0].path}/mlflow.db")
    (experiment,) = (found for found in client.search_experiments() if found.name != "Default")
    return {run.info.run_name: run.info for run in client.search_runs([experiment.experiment_id])}


def test_both_methods_are_in_one_chart_without_any_set_up(shown: str):
    with tab(1900, 1400) as found:
        found.page.goto(shown)
        card = found.page.locator('[data-testid="experiment-view-compare-runs-card"]', has_text="clean/pgd").first
        card.locator(".trace path.js-line").first.wait_for(state="attached", timeout=90_000)
        # Each is drawn twice, one of them a wider line that the mouse finds.
        curves, legend = set(card.evaluate(CURVES)), card.inner_text()
        assert len(curves) == 2, "AT and SGLR, and they differ"
        assert "train@at-0" in legend or "train@sglr-0" in legend


def test_the_compare_view_overlays_the_two_methods(server: str, runs: dict[str, Any]):
    chosen = [runs[name].run_id for name in ("train@at-0", "train@sglr-0")]
    metric = json.dumps("val/pgd")
    query = urllib.parse.urlencode(
        {"runs": json.dumps(chosen), "metric": metric, "experiments": json.dumps([runs["train@at-0"].experiment_id]),
         "plot_metric_keys": f"[{metric}]"}, quote_via=urllib.parse.quote,
    )  # fmt: skip
    with tab(1500, 1100) as found:
        found.page.goto(f"{server}/#/metric?{query}")
        found.page.locator(".trace path.js-line").nth(1).wait_for(state="attached", timeout=90_000)
        assert len(set(found.page.locator("body").evaluate(CURVES))) == 2
        text = found.page.locator("body").inner_text()
        assert "train@at-0 (val/pgd)" in text
        assert "train@sglr-0 (val/pgd)" in text


def test_evaluation_and_analysis_are_folded_into_their_training(server: str, runs: dict[str, Any]):
    with tab(1500, 1100) as found:
        page = found.page
        page.goto(f"{server}/#/experiments/{runs['train@at-0'].experiment_id}/runs")
        page.get_by_text("train@at-0", exact=True).first.wait_for(timeout=90_000)
        assert page.get_by_text("evaluate@at-0", exact=True).count() == 0
        row = page.locator('[role="row"]', has_text="train@at-0").first
        row.locator("button", has=page.locator("svg")).first.click()
        for child in ("evaluate@at-0", "analyze@at-0"):
            page.get_by_text(child, exact=True).first.wait_for(timeout=30_000)
        assert page.get_by_text("evaluate@sglr-0", exact=True).count() == 0
