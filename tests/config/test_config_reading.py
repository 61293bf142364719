"""Values in params.yaml mean what they look like, and what cannot be read is refused by name."""

from pathlib import Path

import pytest

from sglr.config import ConfigError, load, parse, recorded


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("1e-4", 1e-4), ("1E+2", 100.0), ("1.", 1.0), (".5", 0.5), ("-2", -2), ("010", 10), ("0", 0),
        ("yes", "yes"), ("no", "no"), ("on", "on"), ("Off", "Off"), ("y", "y"), ("true", True), ("False", False),
        ("null", None), ("~", None), ("", None), ("'1e-4'", "1e-4"), ('"true"', "true"),
        ("1_000", "1_000"), ("1:30", "1:30"), ("2024-01-01", "2024-01-01"), ("0x10", "0x10"), ("[1, 2e0]", [1, 2.0]),
    ],
)  # fmt: skip
def test_scalars_mean_what_they_look_like(written, meant):
    for read in (parse, recorded):
        value = read(f"key: {written}")["key"]
        assert value == meant
        assert type(value) is type(meant)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train: {epochs: 1}\ntrain: {epochs: 2}\n", "line 2: key 'train' is given twice"),
        ("train:\n  epochs: 1\n  lr: 2\n  epochs: 1\n", "line 4: key 'epochs' is given twice"),
        ("train: {a: 1, a: 2}", "line 1: key 'a' is given twice"),
        ("train: [1, 2\n", "not valid YAML"),
        ("train: epochs: 1\n", "not valid YAML"),
        ("\tepochs: 1\n", "not valid YAML"),
        ("when: !!python/name:os.system\n", "not valid YAML"),
        ("a: &x [*x]\n", "params.yaml"),
        ("- 1\n- 2\n", "must hold a mapping of sections, found list"),
        ("just words\n", "must hold a mapping of sections, found str"),
        ("", "must hold a mapping of sections, found nothing"),
        ("# only a comment\n", "must hold a mapping of sections, found nothing"),
    ],
)
def test_texts_that_are_no_params_are_refused(tmp_path: Path, text: str, expected: str):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert expected in str(caught.value)


def test_files_that_cannot_be_read_are_named(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"cannot read .*nowhere\.yaml"):
        load(tmp_path / "nowhere.yaml")
    with pytest.raises(ConfigError, match="cannot read"):
        load(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"experiment: \xe9\n")
    with pytest.raises(ConfigError, match=r"cannot read .*latin\.yaml"):
        load(tmp_path / "latin.yaml")


def test_anchors_may_share_values():
    assert parse("a: &x {steps: 2}\nb: *x\nc:\n  <<: *x\n  more: 1\n") == {
        "a": {"steps": 2}, "b": {"steps": 2}, "c": {"steps": 2, "more": 1}
    }  # fmt: skip
