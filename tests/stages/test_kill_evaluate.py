"""An evaluation that is killed, with DVC, in the middle of AutoAttack, and continued by ``dvc repro``."""

import os
import signal
import time
from pathlib import Path

import pytest
from study_project import Ended, Project

ITEM = "evaluate@at-0"


def with_autoattack(study: Project) -> Project:
    def edit(params):
        params["evaluate"]["attacks"] = {"autoattack": {"name": "autoattack", "version": "standard", "n_examples": 12}}
        params["evaluate"] |= {"batch_size": 4, "sanity": None}

    study.change(edit)
    return study


@pytest.mark.slow
def test_killed_with_dvc_it_repeats_no_finished_attack(first_run: tuple[Project, Ended], tmp_path: Path, warm: Path):
    whole, killed = (with_autoattack(first_run[0].copy(tmp_path / name)) for name in ("whole", "killed"))
    assert whole.repro(ITEM).ran == ["check", ITEM]
    dvc = killed.start("dvc", "repro", ITEM)
    pieces = killed.path / ".sglr/snapshots/evaluate"
    deadline = time.monotonic() + 120
    while not list(pieces.rglob("autoattack/*-apgd-t.npz")):
        assert dvc.poll() is None, killed.said()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.killpg(dvc.pid, signal.SIGKILL)
    dvc.wait(30)
    kept = {path: path.stat().st_mtime_ns for path in pieces.rglob("*.npz")}
    assert kept
    assert not list(pieces.rglob("last/autoattack/*.npz"))
    assert not (killed.path / "artifacts/evaluate/at-0/metrics.json").exists()
    assert killed.repro(ITEM).ran == [ITEM]
    assert {path: path.stat().st_mtime_ns for path in kept if path.exists()} == kept
    for name in ("metrics.json", "outcomes.npz", "worst.npz"):
        path = Path("artifacts/evaluate/at-0") / name
        assert (killed.path / path).read_bytes() == (whole.path / path).read_bytes()
