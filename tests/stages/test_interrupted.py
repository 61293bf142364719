"""What `sglr status` says of items that were stopped."""

from pathlib import Path

import pytest
import yaml

from sglr import status
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


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"item": "train", "values": 3, "deps": {}, "versions": {}}'])
def test_a_damaged_note_says_nothing(project, content):
    folder = stop("train", "snapshot-000004-00000001")
    (folder / "inputs.json").write_text(content)
    assert said("train") == ("not run", [])
    stop("train")
    assert said("train")[0] == "interrupted"


def test_one_that_left_nothing(project):
    stop("train")
    assert said("train") == ("not run", [])
