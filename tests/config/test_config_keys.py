"""Every key of the shipped params.yaml: explained, needed, of one type, in its range."""

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sglr.config import ConfigError, parse
from sglr.config.reader import validate

TEXT = (Path(__file__).parents[2] / "params.yaml").read_text()
PARAMS = parse(TEXT)
NULLABLE = ("train_size", "n_examples", "natural_forward_from", "step_size_255")
Key = tuple[str, ...]


def keys(value: Any, path: Key = ()) -> Iterator[tuple[Key, Any]]:
    """Every (key, value) of nested mappings, sections included."""
    for name, part in value.items() if isinstance(value, dict) else ():
        yield (*path, name), part
        yield from keys(part, (*path, name))


SECTIONS = [(key, value) for key, value in keys(PARAMS) if isinstance(value, dict)]
PLAIN = [(key, value) for key, value in keys(PARAMS) if not isinstance(value, dict)]


def dotted(cases: list[tuple[Key, Any]]) -> Any:
    return pytest.mark.parametrize("key", [pytest.param(key, id=".".join(key)) for key, _ in cases])


def problem(key: Key, value: Any) -> str:
    """What is said when the key has this value."""
    params = copy.deepcopy(PARAMS)
    section = params
    for name in key[:-1]:
        section = section[name]
    section[key[-1]] = value
    with pytest.raises(ConfigError) as caught:
        validate(params)
    return str(caught.value)


def test_the_shipped_values_are_valid_and_stay_as_they_are():
    config = validate(PARAMS)
    assert config.experiment.methods == ("at", "sglr")
    assert config.train.optimizer.weight_decay == 5e-4
    assert (config.methods["sglr"].labels.name, config.methods["sglr"].labels.start_epoch) == ("refinement", 6)
    with pytest.raises(ValueError, match="frozen"):
        config.train.epochs = 3


def test_every_key_has_a_comment():
    """On its line. Under methods it is enough where a key first stands, and for a line of several keys."""
    explained: set[str] = set()
    in_methods = False
    for line in TEXT.splitlines():
        found = re.match(r"( *)([a-z_0-9]+):", line)
        if not found:
            continue
        if not found[1]:
            in_methods = found[2] == "methods"
        names = {found[2], *re.findall(r"([a-z_]+): ", line.split("#")[0])}
        if "#" in line:
            explained |= names if in_methods else set()
        else:
            assert in_methods, line
            assert names <= {*explained, "name"}, line


@dotted(PLAIN)
def test_a_word_that_means_nothing_is_refused(key: Key):
    """A name that chooses a component belongs to the section it stands in."""
    chooses = key[-1] == "name" and key != ("experiment", "name")
    assert problem(key, "@").startswith(f"params.yaml: {'.'.join(key[:-1] if chooses else key)}: ")


@dotted([(key, value) for key, value in PLAIN if type(value) in (int, float)])
def test_numbers_have_a_range_and_one_type(key: Key):
    name = ".".join(key)
    whole = all(type(value) is int for known, value in PLAIN if known == key)
    for value in (-1, float("nan"), float("inf"), True, "1", [1], *([] if key[-1] in NULLABLE else [None])):
        assert name in problem(key, value), value
    if whole:
        assert name in problem(key, 1.5)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        (
            "methods",
            ["At"],
            ".0: String should match pattern '^[a-z0-9][a-z0-9_]{0,39}$': in lower case, 'at' (found 'At')",
        ),
        ("seeds", [-1], ".0: Input should be greater than or equal to 0 (found -1)"),
        ("seeds", [], ": List should have at least 1 item after validation, not 0 (found [])"),
        ("methods", "at", ": Input should be a valid list (found 'at')"),
    ],
)
def test_of_a_list_only_what_is_wrong_is_said(key: str, value: Any, expected: str):
    assert problem(("experiment", key), value) == f"params.yaml: experiment.{key}{expected}"


@dotted([(key, value) for key, value in PLAIN if isinstance(value, bool)])
def test_switches_are_true_or_false(key: Key):
    for value in (1, 0, "true", None):
        assert ".".join(key) in problem(key, value)


@dotted(SECTIONS)
def test_sections_are_mappings(key: Key):
    # To do without them is a choice.
    optional = key in (("evaluate", "sweep"), ("evaluate", "sanity"), ("analyze", "sharpness"))
    for value in (3, []) if optional else (3, [], None):
        assert ".".join(key) in problem(key, value)


@dotted([(key, value) for key, value in SECTIONS if key not in (("methods",), ("evaluate", "attacks"))])
def test_unknown_keys_are_refused(key: Key):
    message = problem((*key, "zzz"), 1)
    assert f"{'.'.join(key)}.zzz: unknown key." in message


@dotted([(key, value) for key, value in keys(PARAMS) if len(key) <= 2 and key[0] not in ("methods", "model")])
def test_no_section_or_setting_may_be_missing(key: Key):
    params = copy.deepcopy(PARAMS)
    section = params
    for name in key[:-1]:
        section = section[name]
    del section[key[-1]]
    with pytest.raises(ConfigError, match=rf"{re.escape('.'.join(key))}: missing\."):
        validate(params)
