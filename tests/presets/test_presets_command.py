"""`sglr preset`: what it lists, what it writes, and what it refuses to lose."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sglr import presets
from sglr.cli import main
from sglr.presets import overlays

REPOSITORY = Path(__file__).parents[2]
BASE = overlays.text("base")


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The shipped params.yaml in the current folder, alone."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "params.yaml"
    path.write_text(BASE)
    return path


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the preset files, free to change."""
    copy = tmp_path_factory.mktemp("presets")
    for file in overlays.FOLDER.glob("*.yaml"):
        shutil.copy(file, copy)
    monkeypatch.setattr(overlays, "FOLDER", copy)
    return copy


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["preset", *arguments])


def refused(result: Result, *words: str) -> None:
    """It failed with one message, which has these words, and without a traceback."""
    assert result.exit_code == 1
    assert result.exception is None or isinstance(result.exception, SystemExit)
    message = result.output[result.output.index("Error: ") :]
    assert len(message.splitlines()) == 1
    for word in words:
        assert word in message


def test_the_list_says_what_each_is_for_and_costs():
    shown = call().output.split("\n")
    assert [line for line in shown if line and line[0] != " "] == presets.names()
    text = " ".join(" ".join(shown).split())
    for name in presets.names():
        assert presets.read(name).about in text
        assert presets.read(name).cost in text


def test_a_preset_is_written_after_its_difference(params):
    result = call("smoke")
    assert result.exit_code == 0
    shown = {line.split("#")[0].rstrip() for line in result.output.splitlines()}
    assert {"-  epochs: 60", "+  epochs: 6"} <= shown
    assert "params.yaml is now the preset smoke" in result.output
    assert params.read_text() == presets.render("smoke")
    assert [path.name for path in params.parent.iterdir()] == ["params.yaml"]
    # From preset to preset nothing of anybody's own is lost: no question.
    assert "already" in call("smoke").output
    assert call("digits").exit_code == 0
    assert params.read_text() == BASE


def test_a_dry_run_only_shows(params):
    result = call("cifar10-resnet18-sglr", "--dry-run")
    assert result.exit_code == 0
    assert "+  norm" not in result.output
    assert "+  eps_255: 8.0" in result.output
    assert params.read_text() == BASE
    params.write_text(BASE + "# mine\n")
    assert call("smoke", "--dry-run").exit_code == 0
    assert params.read_text() == BASE + "# mine\n"


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("smok", "smoke"), ("cifar10-resnet18-stduy", "cifar10-resnet18-study"), ("base", None), ("../base", None)],
)
def test_a_mistyped_name_gets_the_nearest(params, name, nearest):
    refused(call(name), f"no preset '{name}'", f"Did you mean '{nearest}'?" if nearest else "Known: ablation, ")
    assert params.read_text() == BASE


@pytest.mark.parametrize(
    "mine", [BASE.replace("epochs: 60", "epochs: 61"), BASE + "# a note\n", "experiment: [broken", ""]
)
def test_own_changes_are_not_lost_without_being_asked_for(params, mine):
    params.write_text(mine)
    refused(call("smoke"), "params.yaml", "would be lost", "--force")
    assert params.read_text() == mine
    result = call("smoke", "--force")
    assert result.exit_code == 0
    assert params.read_text() == presets.render("smoke")


@pytest.mark.parametrize("answer", ["y", pytest.param("n", marks=pytest.mark.slow)])
def test_at_a_terminal_it_asks(params, answer):
    mine = BASE.replace("epochs: 60", "epochs: 61")
    params.write_text(mine)
    ours, theirs = os.openpty()
    os.write(ours, f"{answer}\n".encode())
    done = subprocess.run(
        [sys.executable, "-m", "sglr.cli", "preset", "smoke"], stdin=theirs, capture_output=True, text=True,
        check=False, cwd=params.parent, env=os.environ | {"PYTHONPATH": str(REPOSITORY)}, timeout=120,
    )  # fmt: skip
    os.close(ours)
    os.close(theirs)
    assert "Write it anyway? [y/N]" in done.stdout
    assert "-  epochs: 61" in done.stdout
    assert (done.returncode == 0) == (answer == "y")
    assert params.read_text() == (presets.render("smoke") if answer == "y" else mine)


def test_a_folder_without_params_is_perhaps_the_wrong_one(params):
    params.unlink()
    refused(call("smoke"), "no params.yaml here")
    assert not params.exists()
    assert call("smoke", "--force").exit_code == 0
    assert params.read_text() == presets.render("smoke")


@pytest.mark.parametrize(
    ("overlay", "words"),
    [
        ("about: a\ncost: b\ntrain: {epoch: 3}\n", ["preset mine", "train.epoch", "Did you mean 'epochs'"]),
        ("about: a\ncost: b\ntrain: {epochs: many}\n", ["preset mine", "train.epochs", "'many'"]),
        ("about: a\ncost: b\nexperiment: {methods: [atx]}\n", ["preset mine", "'atx'"]),
        ("about: a\ncost: b\ntrain: 3\n", ["preset mine", "train"]),
        ("about: a\ncost: b\nexperiment: {methods: 3}\n", ["preset mine", "experiment.methods"]),
        ("about: a\ncost: b\nexperiment:\n", ["preset mine", "experiment"]),
        ("about: a\ncost: b\nmethods: 3\n", ["preset mine", "methods"]),
        ("about: [a\n", ["preset mine", "not valid YAML"]),
        ("cost: b\n", ["preset mine", "about"]),
        ("about: a\ncost: 3\n", ["preset mine", "cost"]),
        ("about: a\ncost: b\nextends: mine\n", ["extends itself", "mine -> mine"]),
        ("about: a\ncost: b\nextends: smkoe\n", ["Did you mean 'smoke'"]),
        ("about: a\ncost: b\nextends: [smoke]\n", ["preset mine", "extends"]),
    ],
)
def test_an_unusable_preset_writes_nothing(params, folder, overlay, words):
    (folder / "mine.yaml").write_text(overlay)
    result = call("mine", "--force")
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    for word in words:
        assert word in result.output
    assert params.read_text() == BASE
    assert [path.name for path in params.parent.iterdir()] == ["params.yaml"]


def test_a_file_marked_read_only_stays(params):
    params.chmod(0o444)
    refused(call("smoke", "--force"), "params.yaml is read-only", "chmod u+w")
    assert params.read_text() == BASE


def test_a_link_stays_a_link(params, tmp_path_factory):
    kept = tmp_path_factory.mktemp("kept") / "params.yaml"
    params.rename(kept)
    params.symlink_to(kept)
    assert call("smoke").exit_code == 0
    assert params.is_symlink()
    assert kept.read_text() == presets.render("smoke")


def test_a_params_file_that_is_no_text_is_named(params):
    params.write_bytes(b"\xff\xfe\x00")
    refused(call("smoke", "--force"), "cannot read params.yaml")
    params.unlink()
    params.mkdir()
    refused(call("smoke", "--force"), "cannot read params.yaml")


def test_without_ruamel_it_says_what_to_install(params, monkeypatch):
    monkeypatch.setitem(sys.modules, "ruamel.yaml", None)
    refused(call("smoke"), "ruamel.yaml", "pip install 'sglr[pipeline]'")
    assert params.read_text() == BASE
    assert call().exit_code == 0


def test_the_command_line_starts_without_libraries():
    heavy = {"torch", "pydantic", "yaml", "ruamel", "numpy", "sglr.presets"}
    code = f"import sys, sglr.cli; print(*{heavy} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == []
