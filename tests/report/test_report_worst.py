"""The worst case over attacks in the report: a row of its own, never the headline."""

import json

import numpy as np
import pytest

from sglr import report
from sglr.report.interval_figures import draw_gaps
from sglr.report.study import read
from sglr.report.tables import tables


@pytest.mark.usefixtures("undrawn")
def test_the_worst_case_is_shown_last_and_is_not_the_headline(make, tmp_path) -> None:
    settings, artifacts = make()
    plain = report_of(settings, artifacts, tmp_path / "plain")
    for folder in (artifacts / "evaluate").iterdir():
        metrics = json.loads((folder / "metrics.json").read_text())
        with np.load(folder / "outcomes.npz") as stored:
            arrays = dict(stored)
        arrays["index/worst"] = arrays["index/fgsm"]
        for name in ("best", "last"):
            arrays[f"{name}/worst"] = arrays[f"{name}/fgsm"] & arrays[f"{name}/pgd20"]
            metrics[name]["worst"] = arrays[f"{name}/worst"].mean()
        np.savez(folder / "outcomes.npz", **arrays)
        (folder / "metrics.json").write_text(json.dumps(metrics))
    assert read(settings, artifacts).attacks == ("natural", "fgsm", "pgd20", "autoattack", "worst")
    found = report_of(settings, artifacts, tmp_path / "report")
    assert found["headline"] == plain["headline"]
    assert found["cautions"] == plain["cautions"]
    (row,) = (row for row in found["accuracy"] if (row["attack"], row["method"]) == ("worst", "at"))
    (pgd,) = (row for row in found["accuracy"] if (row["attack"], row["method"]) == ("pgd20", "at"))
    # Whatever breaks under FGSM here breaks under PGD.
    assert (row["last"], row["gap"], row["examples"]) == (pgd["last"], pgd["gap"], 200)
    said = "Worst: correct under every one of fgsm, pgd20; without autoattack, run on fewer examples."
    assert said in tables(found)["comparison"].caption
    assert "Worst" not in tables(plain)["comparison"].caption
    for name in ("comparison", "differences", "paired", "seeds"):
        shown = tables(found)[name]
        assert {row[0] for row in shown.rows} >= {"autoattack", "worst of fgsm, pgd20"}, name
        assert {record["attack"] for record in shown.records} >= {"autoattack", "worst"}, name
    (figure,) = draw_gaps(read(settings, artifacts), found)
    assert "‘at’, worst of fgsm, pgd20: " in figure.description
    text = (tmp_path / "report/results.md").read_text()
    assert "| worst of fgsm, pgd20 | at |" in text
    assert "| worst |" not in text
    assert said in text


def report_of(settings, artifacts, folder):
    report.write(settings, artifacts, folder)
    return json.loads((folder / "results.json").read_text())
