"""Params, numbers and names become what MLflow takes; credentials are never shown."""

from pathlib import Path

import pytest

from sglr.config import ConfigError
from sglr.tracking import flatten, settings, values


def test_nested_params_become_dotted_text() -> None:
    nested = {"train": {"lr": 0.1, "schedule": {"milestones": [30, 45]}, "keep": None}, "seed": 0, "bn": True, "m": {}}
    assert flatten(nested) == {
        "train.lr": "0.1",
        "train.schedule.milestones": "[30, 45]",
        "train.keep": "null",
        "seed": "0",
        "bn": "true",
        "m": "{}",
    }


def test_long_params_are_cut_at_mlflows_limit() -> None:
    (text,) = flatten({"x": "a" * 7000}).values()
    assert len(text) == 6000
    assert text.endswith("a...")


@pytest.mark.parametrize(
    ("given", "accepted"),
    [
        ("train/loss", "train/loss"),
        ("accuracy (50%)", "accuracy _50__"),
        ("/a//b/../c/", "a/b/c"),
        ("", "_"),
        ("x" * 300, "x" * 250),
    ],
)
def test_names_become_acceptable(given: str, accepted: str) -> None:
    assert values.name(given) == accepted


def test_metrics_are_numbers_and_unmeasured_ones_are_left_out() -> None:
    assert values.numbers({"a": 1, "b": None, "c": True}) == {"a": 1.0, "c": 1.0}
    with pytest.raises(TypeError, match="metric 'phase' must be a number, found 'train'"):
        values.numbers({"phase": "train"})


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (None, "sqlite:///{root}/mlflow.db"),
        ("sqlite:///runs/a.db?timeout=9", "sqlite:///{root}/runs/a.db?timeout=9"),
        ("file:./mlruns", "file:{root}/./mlruns"),
        *((same, same) for same in ("sqlite:////srv/a.db", "sqlite:///:memory:", "file:///srv/runs", "http://host/x")),
    ],
)
def test_a_relative_address_is_one_from_the_projects_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str | None, expected: str
) -> None:
    """Also where the working folder is the copy of an experiment."""
    (tmp_path / "copy").mkdir()
    monkeypatch.chdir(tmp_path / "copy")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", asked or "")
    assert settings.address(Path("..")) == expected.format(root=tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://anna:s3cret@host:5000/x", "https://host:5000/x"),
        ("cannot reach http://anna:p%40ss@h and http://b:c@d", "cannot reach http://h and http://d"),
        ("postgresql://anna:s3/cret@h/db failed", "postgresql://h/db failed"),
        ("https://bucket/x?sig=abc&y=1 refused", "https://bucket/x refused"),
        ("first line\nsecond", "first line"),
        ("", ""),
    ],
)
def test_credentials_are_not_shown(text: str, expected: str) -> None:
    assert settings.shown(text) == expected


@pytest.mark.parametrize("name", ["a?b", "a%20b"])
def test_a_folder_whose_name_mlflow_would_misread_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(ConfigError, match="which MLflow takes for a part of an address: rename the folder"):
        settings.address(tmp_path / name)
    assert settings.address(tmp_path / "100%").endswith("100%/mlflow.db")


def test_a_token_in_a_message_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "tok-123")
    assert settings.shown("refused: Bearer tok-123") == "refused: Bearer ***"
