"""One tiny finished study per session; tests copy it and change one thing."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import warm_python
from filelock import FileLock
from study_project import Ended, Project


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folder of a ``python`` and a ``dvc`` that start without loading torch and the like each time."""
    with warm_python.install(tmp_path_factory.mktemp("warm") / "python") as folder:
        yield folder


@pytest.fixture(scope="session")
def blank(tmp_path_factory: pytest.TempPathFactory, warm: Path) -> Project:
    """The repository's files with tiny params and no results; not to be changed."""
    return Project.create(tmp_path_factory.mktemp("blank") / "study", warm)


@pytest.fixture(scope="session")
def first_run(blank: Project, tmp_path_factory: pytest.TempPathFactory, warm: Path) -> tuple[Project, Ended]:
    """A study that ``dvc repro`` made from nothing, tracked by MLflow, and what it said; not to be changed.

    The processes of pytest-xdist share one.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    path, said = shared / "first" / "study", shared / "first" / "said.json"
    with FileLock(shared / "first.lock"):
        if not said.exists():
            project = blank.copy(path, warm)
            del project.environment["SGLR_TRACKING"]
            ended = project.repro()
            said.write_text(json.dumps([ended.status, ended.output]))
    project = Project(path, warm)
    del project.environment["SGLR_TRACKING"]
    return project, Ended(*json.loads(said.read_text()))


@pytest.fixture
def finished(first_run: tuple[Project, Ended], tmp_path: Path, warm: Path) -> Project:
    """A copy of the finished study, free to change; not tracked."""
    return first_run[0].copy(tmp_path / "study", warm)


@pytest.fixture
def versioned(first_run: tuple[Project, Ended], tmp_path: Path, warm: Path) -> Project:
    """The finished study, tracked and committed to git, as experiments and clones need it."""
    project = first_run[0].copy(tmp_path / "versioned", warm)
    del project.environment["SGLR_TRACKING"]
    for name, value in (("user.name", "somebody"), ("user.email", "somebody@example.org")):
        project.call("git", "config", name, value)
    project.call("git", "add", "--all")
    assert project.call("git", "commit", "--quiet", "--message", "a study").status == 0
    return project
