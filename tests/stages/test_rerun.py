"""Which items run again after a change: exactly those that depend on it. Each test really runs ``dvc repro``."""

import json
from pathlib import Path

import pytest
from study_project import Ended, Project

MEASURED = ("train", "evaluate", "analyze")


def items(*stages: str, methods: tuple[str, ...] = ("at", "sglr"), seeds: tuple[int, ...] = (0,)) -> list[str]:
    """Items of the stages that have one per method and seed."""
    return [f"{stage}@{method}-{seed}" for stage in stages for method in methods for seed in seeds]


@pytest.fixture(scope="module")
def without_sglr(
    first_run: tuple[Project, Ended], tmp_path_factory: pytest.TempPathFactory, warm: Path
) -> tuple[Project, Ended]:
    """The finished study after sglr was taken off the list; not to be changed."""
    project = first_run[0].copy(tmp_path_factory.mktemp("without") / "study", warm)
    for stage, name in (("train", "sglr-0-backup"), ("evaluate", "mine")):
        (project.path / "artifacts" / stage / name).mkdir()
    project.change(lambda p: p["experiment"].update(methods=["at"]))
    return project, project.repro()


@pytest.fixture
def small(without_sglr: tuple[Project, Ended], tmp_path: Path, warm: Path) -> Project:
    """A study of `at` alone, free to change: where everything runs again, one method is enough."""
    return without_sglr[0].copy(tmp_path / "study", warm)


TWO_METHODS = {
    "a setting of one method": (
        lambda p: p["methods"]["sglr"]["labels"].update(alpha=0.5),
        [*items(*MEASURED, methods=("sglr",)), "audit", "report"],
    ),
    "fewer test examples": (lambda p: p["evaluate"].update(n_examples=30), [*items("evaluate"), "audit", "report"]),
    "other calibration bins": (lambda p: p["analyze"].update(ece_bins=5), [*items("analyze"), "report"]),
    "one method more": (
        lambda p: p["experiment"].update(methods=["at", "sglr", "at_smoothing"]),
        [*items(*MEASURED, methods=("at_smoothing",)), "audit", "report"],
    ),
}  # fmt: skip
AT = items(*MEASURED, methods=("at",))
ONE_METHOD = {
    "another label noise": (
        lambda p: p["data"]["noise"].update(seed=1),
        ["prepare", "warmup@0", *AT, "audit", "report"],
    ),
    "a longer warm-up": (lambda p: p["warmup"].update(epochs=2), ["warmup@0", *AT, "audit", "report"]),
    "one seed more": (
        lambda p: p["experiment"].update(seeds=[0, 1]),
        ["warmup@1", *items(*MEASURED, methods=("at",), seeds=(1,)), "audit", "report"],
    ),
}

# What the others show in less time.
LONG = (
    "fewer test examples", "another label noise", "one method more", "a longer warm-up", "one seed more",
    "other calibration bins",
)  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [pytest.param(one, marks=pytest.mark.slow if one in LONG else ()) for one in (*TWO_METHODS, *ONE_METHOD)],
)
def test_after_a_change_of_params(request: pytest.FixtureRequest, change: str):
    project: Project = request.getfixturevalue("finished" if change in TWO_METHODS else "small")
    edit, expected = (TWO_METHODS | ONE_METHOD)[change]
    before = set(project.lock())
    project.change(edit)
    ended = project.repro()
    # The check, which any edit of params.yaml concerns, writes what it wrote before: nothing runs because of it.
    assert sorted(ended.ran) == sorted(["check", *expected])
    assert ended.restored == []
    assert set(project.lock()) == before | set(expected)


@pytest.mark.slow
def test_a_method_taken_off_the_list(without_sglr: tuple[Project, Ended]):
    """Only what looks at all items runs, without the method, and its folders go."""
    project, ended = without_sglr
    assert sorted(ended.ran) == ["audit", "check", "report"]
    results = json.loads(project.read("report/results.json"))
    assert results["experiment"]["methods"] == ["at"]
    assert {row["method"] for row in results["items"]} == {"at"}
    assert not [line for line in project.read("report/results.md").splitlines() if line.startswith("| pgd2 | sglr")]
    for stage in MEASURED:
        left = {path.name for path in (project.path / "artifacts" / stage).iterdir() if path.is_dir()}
        # What the pipeline did not write stays.
        assert left == {"at-0"} | {"train": {"sglr-0-backup"}, "evaluate": {"mine"}}.get(stage, set())
        assert f"removed artifacts/{stage}/sglr-0, which params.yaml no longer lists" in ended.output
    assert project.repro().ran == []


@pytest.mark.slow
def test_a_method_put_back_on_the_list(first_run: tuple[Project, Ended], small: Project):
    """Its results come back from DVC's cache."""
    small.change(lambda p: p["experiment"].update(methods=["at", "sglr"]))
    back = small.repro()
    assert set(back.ran) <= {"check"}
    assert set(back.restored) - {"check"} == {*items(*MEASURED, methods=("sglr",)), "audit", "report"}
    assert small.lock() == first_run[0].lock()


@pytest.mark.slow
def test_a_lock_file_that_was_emptied(finished: Project):
    """DVC writes it in place; killed at that moment it leaves nothing of it."""
    before = finished.lock()
    (finished.path / "dvc.lock").write_text("")
    failed = finished.call("dvc", "repro")
    assert failed.status != 0
    assert "'./dvc.lock' validation failed" in failed.output
    told = finished.call("python", "-m", "sglr.cli", "status").output
    assert "dvc.lock is damaged: take it from git, or delete it (what is in DVC's cache stays known)" in told
    (finished.path / "dvc.lock").unlink()
    assert set(finished.repro().ran) <= {"check", "prepare"}  # which the cache of runs does not know
    assert finished.lock() == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("room", "stages"),
    [("information", ["analyze"]), ("evaluation", ["evaluate"])],
)
def test_after_an_edit_of_code_that_comes_after_training(finished: Project, room: str, stages: list[str]):
    """A comment changes no number, so that not even the report runs again."""
    for path in (finished.path / "sglr" / room).glob("*.py"):
        # The report uses these itself.
        if path.name not in ("statistics.py", "hierarchical.py", "worst.py"):
            path.write_text(path.read_text() + "# A comment.\n")
    audit = ["audit"] if room == "evaluation" else []
    assert sorted(finished.repro().ran) == [*audit, *items(*stages)]
