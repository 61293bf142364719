"""What a run cost: on its record, among its metrics, and in `sglr results --cost`."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from sglr import files
from sglr.cli import main
from sglr.tracking import costs


def test_a_finished_run_says_what_it_cost(train: Callable[..., Any], database: Any, root: Path) -> None:
    held = None
    with train():
        before = costs.peak_memory()["peak_mib"]
        held = np.ones(40 * 2**20 // 8)
        time.sleep(0.2)
    record = files.read_json(root / ".sglr/records/train@sglr-0.json")
    run = database.run()
    assert record["peak_mib"] == run.data.metrics["memory/peak_mib"] >= max(before, held.nbytes / 2**20)
    assert 0.2 <= run.data.metrics["seconds/total"] <= record["seconds"] + 0.05
    assert "peak_gpu_mib" not in record


def test_a_run_that_failed_has_no_cost_that_a_resumption_could_not_replace(
    train: Callable[..., Any], database: Any
) -> None:
    with pytest.raises(ValueError, match="no"), train():
        raise ValueError("no")
    assert database.run().data.metrics == {}
    with train():
        time.sleep(0.1)
    assert database.run().data.metrics["seconds/total"] >= 0.1


def test_costs_are_listed_in_the_order_of_the_pipeline_with_sums(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["results", "--cost"])
    assert (result.exit_code, "nothing was run on this machine" in result.output) == (1, True)
    plain = {"device": "cpu", "threads": 1, "host": "here", "status": "FINISHED", "ended": "2026-01-01T00:00:00+00:00"}
    for item, seconds in (("report", 2.5), ("train@sglr-0", 100.0), ("train@at-0", 50.0), ("prepare", 1.0)):
        record = {**plain, "item": item, "seconds": seconds, "peak_mib": 512.2}
        files.write_json(tmp_path / f".sglr/records/{item}.json", record)
    lines = CliRunner().invoke(main, ["results", "--cost"]).output.splitlines()
    assert [line.split()[0] for line in lines] == [
        "item", "prepare", "train@at-0", "train@sglr-0", "report", "train,", "all",
    ]  # fmt: skip
    assert " ".join(lines[3].split()) == "train@sglr-0 1 min 40 s 512 MiB – cpu, 1 thread on here"
    assert lines[5].split() == ["train,", "2", "items", "2", "min", "30", "s"]
    assert lines[6].split() == ["all", "2", "min", "34", "s"]
    found = json.loads(CliRunner().invoke(main, ["results", "--cost", "--json"]).output)
    assert [one["seconds"] for one in found] == [1.0, 50.0, 100.0, 2.5]
    # Of another study, on another branch perhaps.
    (tmp_path / "params.yaml").write_text("experiment: {methods: [at], seeds: [0]}\n")
    matrix = {"method": "${experiment.methods}", "seed": "${experiment.seeds}"}
    stages = {"prepare": {"cmd": "x"}, "train": {"matrix": matrix, "cmd": "x"}}
    files.write_json(tmp_path / "dvc.yaml", {"stages": stages})
    found = json.loads(CliRunner().invoke(main, ["results", "--cost", "--json"]).output)
    assert [one["item"] for one in found] == ["prepare", "train@at-0"]
    files.write_json(tmp_path / "dvc.yaml", {"stages": {"check": {"cmd": "x"}}})
    said = CliRunner().invoke(main, ["results", "--cost"])
    assert (said.exit_code, "has records of 4 other items" in said.output) == (1, True)
    for broken in ("stages: [", "{}", "stages: 3"):
        (tmp_path / "dvc.yaml").write_text(broken)
        assert len(json.loads(CliRunner().invoke(main, ["results", "--cost", "--json"]).output)) == 4
