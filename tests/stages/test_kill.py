"""Training that is killed in the middle, refinement under way, and continued by running ``dvc repro`` again.

The stage starts with the plain interpreter, so that processes, groups and parents are those of a user.
"""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import yaml
from study_project import Ended, Project

from sglr import files

ITEM, TRAINED = "train@sglr-0", Path("artifacts/train/sglr-0")
# Refinement starts with epoch 2 of 40.
REFINING = 4


@pytest.fixture
def untrained(first_run: tuple[Project, Ended], tmp_path: Path) -> Project:
    """The finished study as it is before sglr's training: no outs, no entry in dvc.lock, nothing in the run cache."""
    project = first_run[0].copy(tmp_path / "study")
    files.remove = None  # type: ignore[attr-defined]
    for name in ("artifacts/train/sglr-0", ".dvc/cache/runs"):
        subprocess.run(["rm", "-r", name], cwd=project.path, check=True)
    lock = {"schema": "2.0", "stages": {item: entry for item, entry in project.lock().items() if item != ITEM}}
    (project.path / "dvc.lock").write_text(yaml.safe_dump(lock, sort_keys=False))
    return project
