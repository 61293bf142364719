"""Which snapshots are removed when a stage starts; what may not change while it runs."""

import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from sglr import files
from sglr.config import ConfigError
from sglr.project.items import Item
from stages import runtime
from stages.cleaning import clear_partial, prune_snapshots
from stages.pipeline import Definition
from stages.run import Run

LOCK = "stages:\n  train@at-0:\n    outs:\n    - path: metrics.json\n      hash: md5\n      md5: {md5}\n"


def snapshots(folder: str, days: float) -> Path:
    path = Path(".sglr/snapshots/train") / folder
    path.mkdir(parents=True)
    (path / "snapshot-000001-00000001").write_bytes(b"state")
    for member in (path / "snapshot-000001-00000001", path):
        os.utime(member, (time.time() - days * 86400,) * 2)
    return path


def test_those_that_nobody_came_back_to_go(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recent, abandoned = snapshots("recent", 29), snapshots("abandoned", 31)
    resumed = snapshots("resumed", 31)
    (resumed / "snapshot-000002-00000001").write_bytes(b"newer")
    prune_snapshots()
    assert recent.is_dir()
    assert resumed.is_dir()
    assert not abandoned.exists()
    late = snapshots("late", 31)
    prune_snapshots(late)  # somebody has come back to it just now
    assert late.is_dir()


def test_what_a_kill_left_of_files_under_way_goes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("a: 1")
    Path("dvc.yaml").write_text("stages: {prepare: {}, check: {}, train: {}}")
    left = {
        "prepare": Path("artifacts/data/.x_train.npy.1a2b.partial"), "check": Path("artifacts/.check.txt.1a2b.partial"),
        "train": Path("artifacts/train/at-0/last/.model.safetensors.1a2b.partial"),
    }  # fmt: skip
    for path in left.values():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    for stage, path in left.items():
        assert path.exists()
        clear_partial(Definition.read(stage, *(("at", 0) if stage == "train" else ())))
        assert not path.exists()


def test_an_open_editor_is_no_other_code(tmp_path, monkeypatch):
    """A snapshot that is continued, and what DVC counts, depend on neither."""
    monkeypatch.chdir(tmp_path)
    Path("code").mkdir()
    Path("code/loop.py").write_text("1")
    before = files.digest("code"), files.dvc_digest("code")
    for name in (".loop.py.swp", "loop.py~", ".#loop.py", "#loop.py#", ".DS_Store", "._loop.py", ".nfs0001"):
        (Path("code") / name).write_text("2")
    assert (files.digest("code"), files.dvc_digest("code")) == before
    ignored = (Path(__file__).parents[2] / ".dvcignore").read_text().split()
    assert {".*.sw?", "*~", ".#*", "\\#*#", ".DS_Store", "._*", ".nfs*"} <= set(ignored)


def test_those_of_a_finished_item_stay_until_its_outs_are_committed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("metrics.json").write_text("{}")
    done = snapshots("done", 0)
    files.write_json(
        done / "finished.json", {"item": "train@at-0", "path": "metrics.json", "md5": files.md5("metrics.json")}
    )
    Path("dvc.lock").write_text(LOCK.format(md5="0" * 32))
    prune_snapshots()
    assert done.is_dir()
    Path("dvc.lock").write_text(LOCK.format(md5=files.md5("metrics.json")))
    prune_snapshots()
    assert not done.exists()


def test_code_edited_while_a_stage_runs(tmp_path, monkeypatch):
    """DVC would record the code that is there at the end as the one that made the result."""
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("a: 1")
    Path("dvc.yaml").write_text("stages: {audit: {params: [a], deps: [code, artifacts/train]}}")
    for name in ("code", "artifacts/train"):
        Path(name).mkdir(parents=True)
        (Path(name) / "file.py").write_text("1")
    definition = Definition.read("audit")
    before = definition.own_digests()
    (tmp_path / "code/.file.py.swp").write_text("an editor's")
    (tmp_path / "artifacts/train/file.py").write_text("2")  # what other items made is theirs
    definition.require_unchanged(before)
    (tmp_path / "code/file.py").write_text("2")
    with pytest.raises(ConfigError, match=r"^code changed while audit was running.* to continue from its snapshots\.$"):
        definition.require_unchanged(before)


def test_an_old_folder_with_a_new_piece_stays(tmp_path, monkeypatch):
    """As the pieces of an evaluation: one deep in it does not change the time of its top folder."""
    monkeypatch.chdir(tmp_path)
    pieces = snapshots("pieces", 31)
    (pieces / "best/pgd").mkdir(parents=True)
    (pieces / "best/pgd/0.npz").write_bytes(b"piece")
    os.utime(pieces, (time.time() - 31 * 86400,) * 2)
    prune_snapshots()
    assert pieces.is_dir()


def test_a_seed_of_zero_that_is_not_listed_is_refused():
    settings = SimpleNamespace(experiment=SimpleNamespace(methods=["at"], seeds=[1, 2]))
    definition = Definition("at", 0, Item("train@at-0", "", (), (), ()), {})
    with pytest.raises(ConfigError, match=r"seed 0 is not in experiment\.seeds: 1, 2"):
        definition.require_listed(settings)


def test_the_lock_of_what_is_removed_goes_with_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    snapshots("abandoned", 31)
    prune_snapshots()
    assert not list(Path(".sglr/locks").rglob("*.lock"))


def test_a_stage_keeps_the_snapshots_it_goes_on_from(tmp_path, monkeypatch):
    """However old they are: somebody has come back to them."""
    root = Path(__file__).parents[2]
    monkeypatch.chdir(tmp_path)
    for name in ("params.yaml", "dvc.yaml"):
        Path(name).write_bytes((root / name).read_bytes())
    kept = []

    class PrunedError(Exception):
        pass

    def prune(keep=None):
        kept.append(keep)
        raise PrunedError

    monkeypatch.setattr(Definition, "require_inputs", lambda self: None)
    monkeypatch.setattr(Definition, "own_digests", lambda self: {})
    monkeypatch.setattr(Definition, "snapshots", Path("those"))
    monkeypatch.setattr(runtime, "prune_snapshots", prune)
    for stage, named in (("train", {"method": "at", "seed": 0}), ("audit", {})):
        with pytest.raises(PrunedError), runtime.stage(stage, **named):
            pass
    assert kept == [Path("those"), None]


def test_a_measured_zero_is_logged_and_what_was_not_measured_is_not():
    logged: list[tuple[dict, int]] = []
    tracker = SimpleNamespace(metrics=lambda values, step: logged.append((values, step)))
    run = Run(None, None, tracker, None, None)
    run._log_row({"epoch": 3, "refined/corrupted": 0.0, "val/pgd": None, "lr": 0.1})
    assert logged == [({"refined/corrupted": 0.0, "lr": 0.1}, 3)]
