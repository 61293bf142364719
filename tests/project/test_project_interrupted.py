"""What `sglr status` says of items that were stopped."""

from pathlib import Path

import pytest
import yaml

from sglr import files
from sglr.project import status
from stages.pipeline import Definition

PARAMS = {"warmup": {"objective": "standard", "epochs": 3}, "train": {"epochs": 12, "batch_size": 100}, "evaluate": {}}
PIPELINE = {
    "warmup": {"params": ["warmup"], "deps": ["code"], "outs": ["a"]},
    "train": {"params": ["train", "warmup.objective"], "deps": ["code"], "outs": ["b"]},
    "evaluate": {"params": ["evaluate"], "deps": ["code"], "outs": ["c"]},
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": PIPELINE}))
    (tmp_path / "code").mkdir()
    (tmp_path / "code/loop.py").write_text("1")
    give(PARAMS)
    return tmp_path


def give(params: dict) -> None:
    Path("params.yaml").write_text(yaml.safe_dump(params))


def stop(stage: str, *left: str) -> Path:
    """As if it was killed after it had left these files."""
    definition = Definition.read(stage)
    definition.note_inputs()
    for name in left:
        (definition.snapshots / name).parent.mkdir(parents=True, exist_ok=True)
        (definition.snapshots / name).write_bytes(b"state")
    return definition.snapshots


def said(stage: str) -> tuple[str, list[str]]:
    (found,) = (one for one in status.status(Path()) if one.item == stage)
    return found.state, found.reasons


@pytest.mark.parametrize(
    ("stage", "left", "reached"),
    [
        ("train", ["snapshot-000002-00000005", "snapshot-000011-00000005"], "in epoch 11 of 12"),
        ("train", ["snapshot-000013-00000000", "kept/10"], "after its last epoch"),
        ("warmup", ["snapshot--00001-00000005"], "in epoch 2 of 3"),
        ("evaluate", ["best/pgd/0.npz", "last/natural.npz"], "after 2 pieces"),
    ],
)
def test_how_far_it_came(project, stage, left, reached):
    assert said(stage) == ("not run", [])
    folder = stop(stage, *left)
    assert said(stage) == ("interrupted", [f"{reached}; continues there"])
    (folder / "finished.json").write_text("{}")
    assert said(stage) == ("not run", [])


def test_what_would_not_be_continued(project):
    stop("train", "snapshot-000004-00000001")
    (project / "code/loop.py").write_text("2")
    give(PARAMS | {"train": {"epochs": 24, "batch_size": 100}})
    stopped = "a run that was stopped in epoch 4 of 12 does not fit (train.epochs: 12 -> 24, code changed)"
    assert said("train") == ("not run", [stopped])
    # The one that fits counts, whichever is newer.
    stop("train", "snapshot-000002-00000001")
    stop("warmup", "snapshot--00002-00000001")
    assert said("train") == ("interrupted", ["in epoch 2 of 24; continues there"])
    give(PARAMS)
    (project / "code/loop.py").write_text("1")
    assert said("train") == ("interrupted", ["in epoch 4 of 12; continues there"])


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"item": "ITEM", "values": 3, "deps": {}, "versions": {}}'])
@pytest.mark.parametrize(("stage", "left"), [("train", "snapshot-000004-00000001"), ("evaluate", "a.npz")])
def test_a_damaged_note_says_nothing(project, content, stage, left):
    folder = stop(stage, left)
    (folder / "inputs.json").write_text(content.replace("ITEM", stage))
    assert said(stage) == ("not run", [])
    stop(stage)
    assert said(stage)[0] == "interrupted"


@pytest.mark.parametrize(
    "train", [{"epochs": 12, "batch_size": 100.0}, {"epochs": 12, "batch_size": 100, "clip": None}]
)
def test_the_same_value_written_otherwise_begins_anew_and_is_said_to(project, train):
    before = stop("train", "snapshot-000004-00000001")
    give(PARAMS | {"train": train})
    assert Definition.read("train").snapshots != before
    assert "does not fit (a value is written in another way)" in said("train")[1][0]


def test_what_an_experiment_is_at_work_on_was_not_stopped(project):
    stop("train", "snapshot-000004-00000001")
    with files.lock(Definition.read("train").snapshots_lock):
        assert said("train") == ("not run", [])
    assert said("train")[0] == "interrupted"


def test_other_versions_are_named(project, monkeypatch):
    stop("evaluate", "a.npz")
    monkeypatch.setattr("sglr.config.packages.version", lambda package: "99")
    assert said("evaluate")[1][0].startswith("a run that was stopped after 1 piece does not fit (pyautoattack: ")


def test_one_that_left_nothing(project):
    stop("train")
    assert said("train") == ("not run", ["a run that was stopped before anything was kept begins anew"])
    with files.lock(Definition.read("train").snapshots_lock):
        assert said("train") == ("not run", [])
    (project / "code/loop.py").write_text("2")
    assert said("train") == ("not run", [])


def test_what_changed_between_two_calls_is_seen(project):
    """Digests are remembered within one call only."""
    stages = {
        "train": {
            "cmd": "", "deps": [{"path": "code", "md5": files.dvc_digest("code")}],
            "params": {"params.yaml": {"train": PARAMS["train"], "warmup.objective": "standard"}}, "outs": [],
        }
    }  # fmt: skip
    Path("dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}))
    before = said("train")[1]
    Path("code/loop.py").write_text("2")
    assert said("train")[1] == ["code changed", *before]


def test_the_order_in_which_values_are_written_does_not_matter(project):
    stop("train", "snapshot-000002-00000005")
    turned = {**PARAMS, "train": dict(sorted(PARAMS["train"].items(), reverse=True))}
    Path("params.yaml").write_text(yaml.safe_dump(turned, sort_keys=False))
    assert said("train") == ("interrupted", ["in epoch 2 of 12; continues there"])


def test_in_its_last_epoch_it_is_not_after_it(project):
    stop("train", "snapshot-000012-00000005")
    assert said("train") == ("interrupted", ["in epoch 12 of 12; continues there"])
