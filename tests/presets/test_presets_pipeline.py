"""The preset that says whether an installation works, through `sglr preset` and DVC in a copy of the project."""

import json

import pytest
from study_project import ITEMS, Project

from sglr import files, presets
from sglr.config import load


@pytest.mark.slow
def test_smoke_runs_through_dvc(tmp_path, warm):
    project = Project.create(tmp_path / "study", warm)
    written = project.call("python", "-m", "sglr.cli", "preset", "smoke", "--force")
    assert written.status == 0, written.output
    assert (project.path / "params.yaml").read_text() == presets.render("smoke")
    ended = project.repro()
    assert sorted(ended.ran) == sorted(ITEMS)

    config = load(project.path / "params.yaml")
    for method in config.experiment.methods:
        found = json.loads(project.read(f"evaluate/{method}-0/metrics.json"))
        assert found["n_examples"] == {
            "natural": 100, "fgsm": 100, "pgd20_cw": 100, "pgd20": 100, "autoattack": 2, "worst": 100
        }  # fmt: skip
        assert set(found["best"]) == set(found["last"]) == set(found["n_examples"])
    history = files.read_rows(project.path / "artifacts/train/sglr-0/history.csv")
    start = config.methods["sglr"].labels.start_epoch
    softened = [row["refined/entropy"] > 0 for row in history]
    assert softened == [row["epoch"] >= start for row in history]
    assert softened.count(True) == config.train.epochs - start + 1
    assert "<html" in project.read("report/index.html")
