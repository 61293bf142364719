"""One tiny finished study per session; tests copy it and change one thing."""

from pathlib import Path

import hosting
import pytest
from study_project import Ended, Project


def pytest_collection_finish(session: pytest.Session) -> None:
    """Begin what takes longest before the first test asks for it."""
    if session.config.option.collectonly or session.testsfailed:
        return
    if any("first_run" in getattr(item, "fixturenames", ()) for item in session.items):
        hosting.begin_first_run()


@pytest.fixture(scope="session")
def warm() -> Path:
    """Folder of a ``python`` and a ``dvc`` that start without loading torch and the like each time."""
    return hosting.warm()


@pytest.fixture(scope="session")
def blank(tmp_path_factory: pytest.TempPathFactory, warm: Path) -> Project:
    """The repository's files with tiny params and no results; not to be changed."""
    return Project.create(tmp_path_factory.mktemp("blank") / "study", warm)


@pytest.fixture(scope="session")
def first_run() -> tuple[Project, Ended]:
    """A study that ``dvc repro`` made from nothing, tracked by MLflow, and what it said; not to be changed."""
    return hosting.first_run()


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
