"""Reading params.yaml strictly and turning validation failures into messages a user can act on."""

import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from sglr.config.errors import ConfigError, said, unknown
from sglr.config.lookup import section_type
from sglr.config.study import Config

# The largest params file of a study has a few hundred values.
_MOST_VALUES = 100_000
_MOST_SHOWN = 200


class _Loader(yaml.SafeLoader):
    """YAML 1.2 scalars, as DVC reads them (``1e-4`` is a number, ``no`` a word), and no duplicate keys."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (PyYAML's own interface)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.tag != "tag:yaml.org,2002:merge":
                name = self.construct_object(key, deep=True)
                if name in seen:
                    raise ConfigError(f"line {key.start_mark.line + 1}: key {name!r} is given twice in one mapping.")
                seen.add(name)
        return super().construct_mapping(node, deep)


for _tag, _pattern, _first in (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("int", r"^[-+]?[0-9]+$", "-+0123456789"),
    ("float", r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$", "-+0123456789."),
    ("float", r"^(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$", "-+."),
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("merge", r"^<<$", "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))


# PyYAML reads a leading zero as octal; YAML 1.2 does not.
def _whole_number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    return int(loader.construct_scalar(node))


# The same in C, where PyYAML has it, and without the search for duplicate keys.
_Fast: Any = type(
    "_Fast",
    (getattr(yaml, "CSafeLoader", yaml.SafeLoader),),
    {"yaml_implicit_resolvers": _Loader.yaml_implicit_resolvers},
)
for _kind in (_Loader, _Fast):
    _kind.add_constructor("tag:yaml.org,2002:int", _whole_number)


def parse(text: str, source: str = "params.yaml") -> dict[str, Any]:
    """The mapping that a YAML text holds; ConfigError when it is not valid YAML or not a mapping."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is not None:
            _unfolded(node, {})
        values = loader.construct_document(node) if node is not None else None
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from None
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise ConfigError(f"{source} is not valid YAML: {error}") from None
    if not isinstance(values, dict):
        found = "nothing" if values is None else type(values).__name__
        raise ConfigError(f"{source} must hold a mapping of sections, found {found}.")
    return values


def recorded(text: str) -> Any:
    """What DVC wrote into dvc.lock, which may be long, its scalars read as in ``parse``; yaml.YAMLError if not YAML,
    ConfigError if its anchors expand to more values than it has characters."""
    loader = _Fast(text)
    node = loader.get_single_node()
    if node is None:
        return None
    if "*" in text:  # DVC repeats nothing
        _unfolded(node, {}, len(text))
    return loader.construct_document(node)


def _unfolded(node: yaml.Node, known: dict[int, int], most: int = _MOST_VALUES) -> int:
    """How many values a node holds once its anchors are expanded; ConfigError for too many, or an endless one."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in known:
        known[id(node)] = 0
        parts = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
        known[id(node)] = 1 + sum(_unfolded(part, known, most) for part in parts)
    line = node.start_mark.line + 1
    if known[id(node)] == 0:
        raise ConfigError(f"line {line}: an anchor contains itself.")
    if known[id(node)] > most:
        raise ConfigError(f"line {line}: with its anchors expanded it holds more than {most:,} values.")
    return known[id(node)]


def validate(values: dict[str, Any], source: str = "params.yaml") -> Config:
    """Typed config from plain values; ConfigError that lists every problem, one line each."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        lines = [_describe(problem, values) for problem in _own(error.errors(include_url=False))]
        raise ConfigError(f"{source}: " + ("\n  " if len(lines) > 1 else "") + "\n  ".join(lines)) from None


def load(path: str | Path = "params.yaml") -> Config:
    """Read and validate a params file.

    Raises ConfigError when the file is missing, is not valid YAML, or holds a value that cannot be used.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from None
    return validate(parse(text, str(path)), str(path))


def _own(problems: list[Any]) -> list[Any]:
    """Without lists that are too short because pydantic does not count the elements it refuses."""

    def counted(problem: Any) -> bool:
        where = problem["loc"]
        return all(other is problem or other["loc"][: len(where)] != where for other in problems)

    return [problem for problem in problems if problem["type"] != "too_short" or counted(problem)]


def _describe(problem: Any, values: dict[str, Any]) -> str:
    """One line for one pydantic problem: key, what is wrong with it, the value found."""
    where = _place(problem, values)
    key = ".".join(str(part) for part in where)
    if problem["type"] == "extra_forbidden":
        section = section_type(where[:-1], values)
        return unknown(key, section.model_fields if section else ())
    if problem["type"] == "missing":
        return f"{key}: missing."
    found, present = _lookup(where, values)
    shown = f" (found {_short(found)})" if present and where and not isinstance(found, dict) else ""
    return said(problem, key, shown)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]} ..."


def _place(problem: Any, values: Any) -> list[Any]:
    """The key path of a problem, without the names of types that pydantic puts between its parts."""
    where: list[Any] = []
    for part in problem["loc"]:
        if _lookup([*where, part], values)[1]:
            where.append(part)
    return [*where, problem["loc"][-1]] if problem["type"] == "missing" else where


def _lookup(where: list[Any], values: Any) -> tuple[Any, bool]:
    for part in where:
        try:
            values = values[part]
        except (KeyError, IndexError, TypeError):
            return None, False
    return values, True
