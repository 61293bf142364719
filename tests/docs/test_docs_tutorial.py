"""The tutorial, command by command, in a copy of the project with smaller params; and what it says comes out."""

import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pages
import pytest

sys.path.insert(0, str(pages.ROOT / "tests" / "stages"))

import hosting
from study_project import Params, Project

PAGE = pages.ROOT / "docs" / "tutorial.md"


@pytest.fixture(scope="module")
def warm() -> Path:
    return hosting.warm()


@pytest.fixture
def clone(tmp_path: Path, warm: Path) -> Project:
    """What `git clone` and the installation of `make repro` leave; smaller params of the same methods and seeds."""

    def as_shipped(params: Params) -> None:
        """What the tutorial shows of the shipped params, in the small ones that ``Project`` makes."""
        params["experiment"] |= {"name": "digits", "seeds": [0, 1, 2]}
        params["train"] |= {"epochs": 30, "keep_epochs": []}
        params["methods"]["sglr"]["labels"]["start_epoch"] = 6
        attacks = {"pgd20": {"name": "pgd", "steps": 2}, "autoattack": {"name": "autoattack", "n_examples": 1}}
        params["evaluate"]["attacks"] = attacks

    project = Project.create(tmp_path / "sglr")
    project.change(as_shipped)
    commands = project.path / ".venv/bin"
    commands.mkdir(parents=True)
    for name in ("python", "dvc"):
        shutil.copy(warm / name, commands)
    (commands / "sglr").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m sglr.cli "$@"\n')
    (commands / "sglr").chmod(0o755)
    (commands / "activate").write_text("")
    (project.path / ".venv/.installed").touch()
    project.environment["PATH"] = os.pathsep.join([str(commands), project.environment["PATH"]])
    for command in ("config user.name Reader", "config user.email reader@example.org", "add .", "branch -m main"):
        project.call("git", *command.split())
    project.call("git", "commit", "--quiet", "--message", "As cloned")
    return project


def masked(line: str) -> str:
    """A line without its numbers, and without the spaces that depend on them. So few examples may not differ at all."""
    line = re.sub(r"\[(no|every) example differs\]", "[0, 0]", line)
    return " ".join(re.sub(r"[−-]?\d+(\.\d+)?", "#", line).split())


def missing(shown: list[str], said: str) -> list[str]:
    """Lines shown that the command did not say, in this order, numbers aside. What the results are is not compared."""
    lines = iter([masked(line) for line in said.splitlines()])
    wanted = [line for line in shown if line != "..." and not line.startswith("**‘")]
    return [line for line in wanted if not any(masked(line) == found for found in lines)]


def steps(text: str) -> Iterator[tuple[str, list[str]]]:
    """Each command of a console block with the lines shown below it."""
    command, shown = "", []
    for line in text.splitlines():
        if line.startswith("$ "):
            if command:
                yield command, shown
            command, shown = line.removeprefix("$ "), []
        else:
            shown.append(line)
    yield command, shown


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_command_does_what_the_tutorial_shows(clone: Project, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(clone.path)
    params, ran = clone.path / "params.yaml", 0
    blocks = re.findall(r"^```(\w+)([^\n]*)\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    for language, where, text in blocks:
        if language == "yaml":
            params.write_text(pages.with_piece(params.read_text(), text))
        elif language == "python":
            (clone.path / where.strip().removeprefix("file=")).write_text(text)
        else:
            for command, shown in steps(text):
                if command.startswith("git clone"):
                    continue
                ended = clone.call("sh", "-c", command)
                assert ended.status == 0, f"{command}\n{ended.output}"
                assert missing(shown, ended.output) == [], f"{command}\n{ended.output}"
                ran += 1
    assert ran > 20


def test_a_line_that_is_not_said_is_found():
    said = "one 1.5 line\nother   -3\nlast"
    assert missing(["one 2 line", "...", "other −4"], said) == []
    assert missing(["other 3", "one 2 line"], said) == ["one 2 line"]
    assert missing(["one line"], said) == ["one line"]


def test_steps_are_commands_with_what_is_shown_below():
    assert list(steps("$ one\n$ two\na\nb\n")) == [("one", []), ("two", ["a", "b"])]
