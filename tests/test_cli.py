"""The sglr command as a user meets it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import click
import pytest
import yaml
from click.testing import CliRunner
from command import call

from sglr import presets, tracking
from sglr.cli import main
from sglr.doctor import examining
from sglr.files import FileError
from sglr.project import running, status
from sglr.terminal import Group

ROOT = Path(__file__).parents[1]


def test_check_says_what_is_valid_and_what_is_not(tmp_path, params):
    assert call("check", "params.yaml").output.startswith("params.yaml is valid: 2 methods (at, sglr), 3 seeds")
    bad = tmp_path / "bad.yaml"
    bad.write_text("experiment: {name: x}\n")
    result = call("check", str(bad))
    assert result.exit_code == 1
    assert "experiment.methods: missing." in result.output
    assert "data: missing." in result.output


def test_check_says_what_is_probably_not_meant(tmp_path, params):
    params["threat"]["eps_255"] = 8 / 255
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    result = call("check", str(tmp_path / "params.yaml"))
    assert result.exit_code == 0
    assert re.search(r"^warning: threat\.eps_255 0\.03.* radii are given in 255ths", result.output)


def test_a_package_that_is_missing_is_named(monkeypatch):
    @click.command(name="predict")
    def predict():
        raise ModuleNotFoundError("No module named 'pyautoattack'", name="pyautoattack")

    group = Group("sglr")
    group.section("Use", predict)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    result = CliRunner().invoke(group, ["predict"])
    assert result.exit_code == 1
    assert result.output == "Error: pyautoattack is not installed, which this needs: pip install -e '.[pipeline]'\n"


def test_results_are_printed_or_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = call("results")
    assert result.exit_code == 1
    assert "run `dvc repro`" in result.output
    (tmp_path / "artifacts" / "report").mkdir(parents=True)
    (tmp_path / "artifacts" / "report" / "results.md").write_text("# digits\n")
    assert call("results").output == "# digits\n\n"


def test_sync_has_nothing_to_send_in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = call("sync")
    assert result.exit_code == 0, result.output


def test_help_lists_commands_in_the_order_of_use_under_headings():
    lines = call("--help").output.splitlines()
    shown = [line.split()[0] for line in lines if line.startswith("  ") and line.split()[0] in main.commands]
    assert shown == list(main.list_commands(click.Context(main)))
    assert shown[:3] == ["preset", "check", "doctor"]
    assert set(shown) == set(main.commands)
    assert lines.index("Set up:") < lines.index("Run and follow a study:") < lines.index("Use the models:")


@pytest.mark.parametrize("name", sorted(main.commands))
def test_every_command_has_examples_that_name_options_it_has(name):
    text = call(name, "--help").output
    examples = [line.split() for line in text.split("Examples:")[1].splitlines() if " sglr " in f" {line} "]
    assert examples
    options = {option for parameter in main.commands[name].params for option in parameter.opts}
    for words in examples:
        assert words[words.index("sglr") + 1] == name
        assert {word for word in words if word.startswith("--")} <= options


def interrupt(*_, **__):
    raise KeyboardInterrupt


def test_ctrl_c_ends_politely(monkeypatch):
    monkeypatch.setattr(tracking, "sync", interrupt)
    result = call("sync")
    assert result.exit_code == 130
    assert result.output.strip() == "stopped by Ctrl-C"


def test_an_error_of_the_program_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(presets, "listing", lambda: 1 / 0)
    assert isinstance(call("preset").exception, ZeroDivisionError)


def test_sync_fails_where_something_is_missing(monkeypatch):
    report = tracking.SyncReport(missing=3, failed={"train@at-0": "no server"})
    monkeypatch.setattr(tracking, "sync", lambda root, end_interrupted: report)
    result = call("sync")
    assert result.exit_code == 1
    assert "train@at-0: not completely sent: no server" in result.output


def test_colours_on_a_terminal_only_and_not_where_they_are_not_wanted(monkeypatch):
    monkeypatch.setattr(status, "status", lambda root: [status.Status("train@at-0", "done")])
    assert "\x1b[32m" in CliRunner().invoke(main, ["status"], color=True).output
    assert "\x1b" not in call("status").output
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in CliRunner().invoke(main, ["status"], color=True).output


def test_the_help_of_predict_says_whose_norm_it_is():
    helps = {option.name: getattr(option, "help", "") for option in main.commands["predict"].params}
    assert all("params.yaml's norm" in helps[name] for name in ("attack", "eps"))


def test_the_help_of_status_names_the_states_there_are():
    help_text = str(main.commands["status"].help)
    assert [state for state in get_args(status.State) if state not in help_text] == []


def test_json_for_scripts(monkeypatch, tmp_path):
    progress = running.Progress(30.0, 2, 60, 290.0)
    found = [status.Status("train@at-0", "running", [str(progress)], progress), status.Status("report", "waiting")]
    monkeypatch.setattr(status, "status", lambda root: found)
    first, second = json.loads(call("status", "--json").output)
    assert first["progress"] == {"seconds": 30.0, "epoch": 2, "epochs": 60, "seconds_left": 290.0}
    assert (second["item"], second["state"], second["progress"]) == ("report", "waiting", None)
    monkeypatch.setattr(examining, "examine", lambda root: [examining.Finding("problem", "disk", "full")])
    result = call("doctor", "--json")
    assert json.loads(result.output) == [{"level": "problem", "about": "disk", "text": "full"}]
    assert result.exit_code == 1
    monkeypatch.chdir(tmp_path)
    (tmp_path / "artifacts/report").mkdir(parents=True)
    (tmp_path / "artifacts/report/results.json").write_text('{"format": 1}')
    (tmp_path / "dvc.yaml").touch()
    result = call("results", "--json")
    assert json.loads(result.stdout) == {"format": 1}
    assert "This report is out of date" in result.stderr

    def conflicts(root):
        raise FileError("dvc.lock holds conflicts of a merge")

    monkeypatch.setattr(status, "status", conflicts)
    result = call("results", "--json")
    assert result.exit_code == 0
    said = "Cannot tell whether this report is up to date: dvc.lock holds conflicts of a merge"
    assert said in result.stderr


def test_output_of_another_encoding(tmp_path):
    """Of a terminal, or a pipe, that has no minus sign: of commands, and of the stage that prints the results."""
    (tmp_path / "artifacts" / "report").mkdir(parents=True)
    (tmp_path / "artifacts" / "report" / "results.md").write_text("gap \N{MINUS SIGN}2.0 ± 1.1\n")
    stage = [
        "-c",
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import stages; print('gap \N{MINUS SIGN}2.0 ± 1.1')",
    ]
    for arguments in (["-m", "sglr", "results"], stage):
        ended = subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, env={**os.environ, "PYTHONIOENCODING": "latin-1"},
            capture_output=True, check=True,
        )  # fmt: skip
        assert ended.stdout.decode("latin-1").strip() == "gap ?2.0 ± 1.1"


def test_it_is_a_module_too():
    done = subprocess.run([sys.executable, "-m", "sglr", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("sglr")
