"""The sglr command as a user meets it."""

from click.testing import CliRunner

from sglr.cli import main


def call(*arguments: str):
    return CliRunner().invoke(main, arguments)


def test_check_says_what_is_valid_and_what_is_not(tmp_path, params):
    assert call("check", "params.yaml").output.startswith("params.yaml is valid: 2 methods (at, sglr), 3 seeds")
    bad = tmp_path / "bad.yaml"
    bad.write_text("experiment: {name: x}\n")
    result = call("check", str(bad))
    assert result.exit_code == 1
    assert "experiment.methods: missing." in result.output
    assert "data: missing." in result.output


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
