"""What DVC's own tables and plots show of a study: the right columns, titles, axes, methods overlaid."""

import csv
import io
import json
import subprocess
from typing import Any

import pytest
from study_project import EPOCHS, Ended, Project

HEADLINE = "artifacts/report/metrics.json"
# As in docs/how-to/command-line.md: columns of files and of single items.
DROP = ".*/|items|params.yaml"
PLOTS = {
    "validation accuracy under PGD": ("Validation accuracy under PGD", "accuracy, mean over seeds"),
    "training accuracy under PGD": ("Training accuracy under PGD", "accuracy, mean over seeds"),
    "validation accuracy, natural": ("Natural validation accuracy", "accuracy, mean over seeds"),
    "training loss": ("Training loss", "loss, mean over seeds"),
}


def output(project: Project, *command: str) -> str:
    """What a command says on stdout; warnings go elsewhere."""
    done = subprocess.run(
        command, cwd=project.path, env=project.environment, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def commit(project: Project) -> None:
    """Everything that git is to keep, as a user's first commit."""
    name = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    subprocess.run(["git", "add", "-A"], cwd=project.path, check=True, capture_output=True)
    subprocess.run(["git", *name, "commit", "-qm", "study"], cwd=project.path, check=True, capture_output=True)


def values(plot: dict[str, Any]) -> list[dict[str, Any]]:
    return plot["content"]["data"]["values"]


def encodings(content: Any, key: str) -> list[Any]:
    """Every value of ``key`` in a nested structure."""
    if isinstance(content, dict):
        found = [content[key]] if key in content else []
        return found + [value for inner in content.values() for value in encodings(inner, key)]
    return [value for inner in content for value in encodings(inner, key)] if isinstance(content, list) else []


def test_plots_overlay_the_methods_with_titles_and_axes(first_run: tuple[Project, Ended]):
    shown = json.loads(output(first_run[0], "dvc", "plots", "show", "--json"))
    assert set(shown["data"]) == set(PLOTS)
    assert not shown.get("errors")
    for name, (title, label) in PLOTS.items():
        (plot,) = shown["data"][name]
        assert plot["content"]["title"]["text"] == title
        assert {"epoch", label} <= {found for found in encodings(plot["content"], "title") if isinstance(found, str)}
        lines = {(row["field"], row["epoch"]) for row in values(plot)}
        assert {field for field, _ in lines} == {"at", "sglr"}
        assert {(method, str(EPOCHS)) for method in ("at", "sglr")} <= {(field, str(epoch)) for field, epoch in lines}


def test_the_headline_metrics_are_few_and_those_of_the_report(first_run: tuple[Project, Ended]):
    project = first_run[0]
    (found,) = json.loads(output(project, "dvc", "metrics", "show", "--json", HEADLINE)).values()
    data = found["data"][HEADLINE]["data"]
    results = json.loads(project.read("report/results.json"))
    assert set(data) == {"at", "sglr"}
    for row in results["accuracy"]:
        if row["attack"] in ("natural", "pgd2"):
            assert data[row["method"]][row["attack"]]["last"] == row["last"]["mean"]
    (reduction,) = (
        row["estimate"]
        for row in results["comparisons"]
        if (row["attack"], row["quantity"]) == ("pgd2", "gap_reduction")
    )
    assert data["sglr"]["pgd2"]["gap_reduction"] == reduction
    assert sum(len(attack) for method in data.values() for attack in method.values()) < 20


def test_the_graph_is_drawn_by_stage(first_run: tuple[Project, Ended]):
    lines = output(first_run[0], "dvc", "dag", "--md", "--collapse-foreach-matrix").splitlines()
    named = {line.split('["')[1].split('"]')[0] for line in lines if '["' in line}
    assert named == {"check", "prepare", "warmup", "train", "evaluate", "audit", "analyze", "report"}


def test_changed_params_are_named(finished: Project):
    commit(finished)
    finished.change(lambda params: params["methods"]["sglr"]["labels"].update(alpha=0.5))
    found = json.loads(output(finished, "dvc", "params", "diff", "--json"))
    assert found == {"params.yaml": {"methods.sglr.labels.alpha": {"old": 0.9, "new": 0.5, "diff": -0.4}}}


@pytest.mark.slow
def test_an_experiment_is_set_beside_the_study(finished: Project):
    commit(finished)
    output(finished, "dvc", "exp", "run", "--name", "shorter", "-S", "train.epochs=20")
    shown = list(csv.DictReader(io.StringIO(output(
        finished, "dvc", "exp", "show", "--csv", "--only-changed", "--drop", DROP,
    ))))  # fmt: skip
    assert shown[0].keys() - {"Experiment", "rev", "typ", "Created", "parent", "State", "Executor"} < {
        "train.epochs", *(f"{m}.{attack}.{part}" for m in ("at", "sglr") for attack in ("natural", "pgd2")
                          for part in ("best", "last", "gap", "gap_reduction")),
        *(f"{m}.validation.{kind}.{part}" for m in ("at", "sglr") for kind in ("natural", "pgd")
          for part in ("best", "last")),
    }  # fmt: skip
    row = next(row for row in shown if row["Experiment"] == "shorter")
    assert row["train.epochs"] == "20"
    before = next(row for row in shown if row["rev"] in ("master", "main"))
    changed = json.loads(output(finished, "dvc", "metrics", "diff", "--json", "--targets", HEADLINE))
    name, change = next((name, change) for name, change in changed[HEADLINE].items() if change["old"] != change["new"])
    assert (float(before[name]), float(row[name])) == pytest.approx((change["old"], change["new"]), abs=1e-5)
    diff = json.loads(output(finished, "dvc", "plots", "diff", "--json", "HEAD", "workspace"))
    revisions = {row["rev"] for plot in diff["data"]["validation accuracy under PGD"] for row in values(plot)}
    assert revisions == {"HEAD", "workspace"}
