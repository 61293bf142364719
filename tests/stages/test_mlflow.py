"""What a user of the MLflow UI finds after the first ``dvc repro``: a run per item, with everything in it."""

import pytest
from study_project import EPOCHS, ITEMS, Ended, Project

from sglr import files


class Runs:
    """The runs of a project's database, by name."""

    def __init__(self, project: Project) -> None:
        from mlflow.tracking import MlflowClient

        self.project = project
        self.client = MlflowClient(f"sqlite:///{project.path}/mlflow.db")
        (experiment,) = (found for found in self.client.search_experiments() if found.name != "Default")
        self.experiment = experiment
        self.all = list(self.client.search_runs([experiment.experiment_id]))
        self.by_name = {run.info.run_name: run for run in self.all}

    def steps(self, name: str, metric: str) -> list[int]:
        found = self.client.get_metric_history(self.by_name[name].info.run_id, metric)
        return sorted(point.step for point in found)

    def artifacts(self, name: str, folder: str | None = None) -> set[str]:
        return {entry.path for entry in self.client.list_artifacts(self.by_name[name].info.run_id, folder)}


@pytest.fixture(scope="module")
def runs(first_run: tuple[Project, Ended]) -> Runs:
    return Runs(first_run[0])


def test_one_finished_run_per_item(runs: Runs):
    assert runs.experiment.name == "tiny"
    tracked = [item for item in ITEMS if item != "check"]
    assert sorted(run.info.run_name for run in runs.all) == sorted(tracked)
    assert {run.info.status for run in runs.all} == {"FINISHED"}


def test_runs_say_what_they_are(runs: Runs):
    run = runs.by_name["train@sglr-0"]
    trained = runs.project.path / "artifacts/train/sglr-0"
    tags = run.data.tags
    assert (tags["stage"], tags["method"], tags["seed"]) == ("train", "sglr", "0")
    assert tags["weights_md5"] == files.md5(trained / "last/model.safetensors")
    assert tags["params_hash"] != runs.by_name["train@at-0"].data.tags["params_hash"]
    params = run.data.params
    assert params["train.epochs"] == str(EPOCHS)
    assert params["methods.sglr.labels.name"] == "refinement"
    assert params["train.optimizer.weight_decay"] == "0.0005"
    assert not any(name.startswith(("methods.at", "evaluate", "analyze")) for name in params)


def test_metrics_of_every_epoch_have_the_same_names_for_every_method(runs: Runs):
    for name in ("train@at-0", "train@sglr-0"):
        for metric in ("train/loss", "train/pgd", "val/natural", "val/pgd", "noisy/pgd_given", "refined/entropy", "lr"):
            assert runs.steps(name, metric) == list(range(1, EPOCHS + 1)), (name, metric)
    rows = files.read_rows(runs.project.path / "artifacts/train/sglr-0/history.csv")
    run_id = runs.by_name["train@sglr-0"].info.run_id
    found = {point.step: point.value for point in runs.client.get_metric_history(run_id, "val/pgd")}
    assert found == {row["epoch"]: row["val/pgd"] for row in rows if row["phase"] == "train"}
    assert len(runs.steps("warmup@0", "train/loss")) == 1


def test_evaluation_and_analysis_are_children_of_their_training(runs: Runs):
    for method in ("at", "sglr"):
        parent = runs.by_name[f"train@{method}-0"]
        for stage in ("evaluate", "analyze"):
            child = runs.by_name[f"{stage}@{method}-0"]
            assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        metrics = files.read_json(runs.project.path / f"artifacts/evaluate/{method}-0/metrics.json")
        for checkpoint in ("best", "last", "gap"):
            for attack, accuracy in metrics[checkpoint].items():
                assert parent.data.metrics[f"test/{checkpoint}/{attack}"] == accuracy
        assert any(name.startswith("information/last/") for name in parent.data.metrics)
    for name in ("prepare", "warmup@0", "train@at-0", "report"):
        assert "mlflow.parentRunId" not in runs.by_name[name].data.tags


def test_small_files_are_with_their_runs(runs: Runs):
    assert "meta.json" in runs.artifacts("prepare")
    assert {"history.csv", "metrics.json"} <= runs.artifacts("train@sglr-0")
    assert "metrics.json" in runs.artifacts("evaluate@at-0")
    assert {"metrics.json", "memorization.csv"} <= runs.artifacts("analyze@at-0")
    assert {"report/index.html", "report/results.md", "report/figures"} <= runs.artifacts("report", "report")


def test_every_figure_and_table_is_with_the_report(runs: Runs):
    for folder in ("figures", "tables", "curves"):
        made = {f"report/{folder}/{path.name}" for path in (runs.project.path / "artifacts/report" / folder).iterdir()}
        assert made == runs.artifacts("report", f"report/{folder}")
        assert len(made) > 5


def test_every_run_says_what_it_cost(runs: Runs):
    for run in runs.all:
        assert run.data.metrics["seconds/total"] > 0
        assert run.data.metrics["memory/peak_mib"] > 10


def test_nothing_is_left_to_send(runs: Runs):
    assert runs.project.call("sglr", "sync").output == "0 points and files sent, 0 missing.\n"
