"""What the test processes of one session share: the process that stages start from, and the study that tests copy.

The first who asks starts them, in the background; they go when the session ends.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

import psutil
import warm_python
from study_project import REPOSITORY, Ended, Project

# Of pytest-xdist, which has one process above those that run tests.
_SESSION, _WORKER = "PYTEST_XDIST_TESTRUNUID", "PYTEST_XDIST_WORKER"
_WAIT = 300
# Kept, or Python would warn that they still run.
_started: list[subprocess.Popen[bytes]] = []


def folder() -> Path:
    # A process id is used again, not together with its start.
    own = f"{os.getpid()}-{psutil.Process().create_time()}"
    return Path(tempfile.gettempdir()) / f"sglr-stages-{os.environ.get(_SESSION, own)}"


def warm() -> Path:
    """Folder of a ``python`` and a ``dvc`` that start without loading torch and the like each time."""
    commands = folder() / "python"
    try:
        folder().mkdir()
    except FileExistsError:
        return commands / "bin"
    lasting = os.getppid() if _WORKER in os.environ else os.getpid()
    _started.append(warm_python.start(commands, while_lives=lasting, then_remove=folder()))
    return commands / "bin"


def begin_first_run() -> None:
    """Begin to make the study from nothing, unless that is done."""
    python = warm()
    try:
        _first().mkdir()
    except FileExistsError:
        return
    call = [sys.executable, __file__, str(python)]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), _SESSION: folder().name.removeprefix("sglr-stages-")}
    making = subprocess.Popen(call, env=environment, stdin=subprocess.DEVNULL)
    # Waited for, so that none of the tests finds what is left of it among its children.
    threading.Thread(target=making.wait, daemon=True).start()


def first_run() -> tuple[Project, Ended]:
    """The study, tracked by MLflow, and what ``dvc repro`` said that made it; not to be changed."""
    begin_first_run()
    deadline = time.monotonic() + _WAIT
    while not _said().exists():
        assert time.monotonic() < deadline, f"no study was made in {_first()}"
        time.sleep(0.1)
    ended = Ended(*json.loads(_said().read_text()))
    assert ended.status == 0, ended.output
    return _tracked(Project(_first() / "study", warm())), ended


def _first() -> Path:
    return folder() / "first"


def _said() -> Path:
    return _first() / "said.json"


def _tracked(project: Project) -> Project:
    del project.environment["SGLR_TRACKING"]
    return project


def _make(python: Path) -> None:
    try:
        ended = _tracked(Project.create(_first() / "study", python)).call("dvc", "repro")
    except Exception:
        ended = Ended(-1, traceback.format_exc())
    half = _said().with_suffix(".half")
    half.write_text(json.dumps([ended.status, ended.output]))
    half.rename(_said())


if __name__ == "__main__":
    _make(Path(sys.argv[1]))
