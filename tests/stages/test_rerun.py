"""Which items run again after a change: exactly those that depend on it. Each test really runs ``dvc repro``."""

import json

import pytest
from study_project import ITEMS, Project


def items(*stages: str, methods: tuple[str, ...] = ("at", "sglr"), seeds: tuple[int, ...] = (0,)) -> list[str]:
    """Items of the stages that have one per method and seed."""
    return [f"{stage}@{method}-{seed}" for stage in stages for method in methods for seed in seeds]


MEASURED = ("train", "evaluate", "analyze")
CHANGES = {
    "another label noise": (lambda p: p["data"]["noise"].update(seed=1), ITEMS),
    "a longer warm-up": (lambda p: p["warmup"].update(epochs=2), [item for item in ITEMS if item != "prepare"]),
    "a setting of one method": (
        lambda p: p["methods"]["sglr"]["labels"].update(alpha=0.5),
        ["check", *items(*MEASURED, methods=("sglr",)), "report"],
    ),
    "fewer test examples": (lambda p: p["evaluate"].update(n_examples=30), ["check", *items("evaluate"), "report"]),
    "other calibration bins": (lambda p: p["analyze"].update(ece_bins=5), ["check", *items("analyze"), "report"]),
    "the report's own setting": (lambda p: p["report"].update(seed=1), ["check", "report"]),
    "one seed more": (
        lambda p: p["experiment"].update(seeds=[0, 1]), ["check", "warmup@1", *items(*MEASURED, seeds=(1,)), "report"]
    ),
    "one method more": (
        lambda p: p["experiment"].update(methods=["at", "sglr", "at_smoothing"]),
        ["check", *items(*MEASURED, methods=("at_smoothing",)), "report"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_after_a_change_of_params(finished: Project, change: str):
    edit, expected = CHANGES[change]
    finished.change(edit)
    ended = finished.repro()
    assert sorted(ended.ran) == sorted(expected)
    assert ended.restored == []
    assert sorted(finished.lock()) == sorted({*ITEMS, *expected})


def test_a_method_taken_off_the_list_and_put_back(finished: Project):
    """Only the report runs, without the method; its results come back from DVC's cache."""
    before = finished.lock()
    finished.change(lambda p: p["experiment"].update(methods=["at"]))
    assert sorted(finished.repro().ran) == ["check", "report"]
    results = json.loads(finished.read("report/results.json"))
    assert results["experiment"]["methods"] == ["at"]
    assert {row["method"] for row in results["items"]} == {"at"}
    assert "sglr-0" not in finished.read("report/results.md")
    for stage in MEASURED:
        assert [path.name for path in (finished.path / "artifacts" / stage).iterdir() if path.is_dir()] == ["at-0"]
    assert finished.repro().ran == []

    finished.change(lambda p: p["experiment"].update(methods=["at", "sglr"]))
    back = finished.repro()
    assert back.ran == ["check"] or back.ran == []
    assert set(back.restored) >= {*items(*MEASURED, methods=("sglr",)), "report"}
    assert finished.lock() == before


@pytest.mark.parametrize(("room", "stages"), [("information", ["analyze"]), ("evaluation", ["evaluate"])])
def test_after_an_edit_of_code_that_comes_after_training(finished: Project, room: str, stages: list[str]):
    """A comment changes no number, so that not even the report runs again."""
    for path in (finished.path / "sglr" / room).glob("*.py"):
        if path.name != "statistics.py":
            path.write_text(path.read_text() + "# A comment.\n")
    assert sorted(finished.repro().ran) == items(*stages)
