"""Errors that a user can cause, and how a bad configuration is described."""

import importlib.util
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from sglr.config.wording import suggest

# Names as they are imported.
_OF_THE_PIPELINE = (
    "PIL", "dvc", "jinja2", "matplotlib", "mlflow", "pandas", "psutil", "pyautoattack", "ruamel", "scipy", "sklearn",
    "torchvision",
)  # fmt: skip
_SHIPPED = Path(__file__).parents[1] / "presets" / "base.yaml"
# Pydantic's wording for tuples; YAML has lists only.
_OF_LISTS = ("tuple_type", "too_short", "too_long")


class UserError(Exception):
    """An error that a user can fix: the message says how, and the commands show only the message.

    Base of ConfigError, FileError, TrainingError and this library's other errors that are not bugs.
    """


class ConfigError(UserError, ValueError):
    """A value in params.yaml that cannot be used; the message names key, value and what is allowed."""


class ModelError(UserError, ValueError):
    """A model whose outputs cannot count: no logits, other classes than the data's, weights that do not stay."""


def for_users(error: Exception) -> str | None:
    """What a command shows of an error instead of a traceback; None for a bug, which keeps it."""
    if isinstance(error, UserError):
        # Names in a file from elsewhere may hold what a terminal takes for commands.
        return re.sub(r"[^\n\t -~\xa0-\U0010ffff]", lambda found: repr(found[0])[1:-1], str(error))
    if isinstance(error, ModuleNotFoundError):
        package = (error.name or "").partition(".")[0]
        if package in ("", "sglr", "stages") or importlib.util.find_spec(package):
            return None
        todo = "-e '.[pipeline]'" if package in _OF_THE_PIPELINE else package
        return f"{package} is not installed, which this needs: pip install {todo}"
    if full := _out_of_memory(error):
        return (
            f"{str(full).split('. ')[0]}. To use less memory: a smaller train.batch_size, evaluate.batch_size or"
            " analyze.gradients.chunk, or train.precision bf16."
        )
    return None


def _out_of_memory(error: BaseException | None) -> BaseException | None:
    """Torch's error of a full GPU among an error and those it comes from, as torch's compiler raises others from it."""
    while error is not None:
        # By its name: torch takes seconds to import.
        if any((kind.__module__, kind.__name__) == ("torch", "OutOfMemoryError") for kind in type(error).__mro__):
            return error
        error = error.__cause__ or error.__context__
    return None


def said(problem: Mapping[str, Any], key: str, found: str = "") -> str:
    """'key: problem' for one of pydantic's problems, in YAML's terms; ``found`` is appended."""
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "string_pattern_mismatch":
        lower = problem["input"].lower()
        message += f": in lower case, {lower!r}" if re.fullmatch(problem["ctx"]["pattern"], lower) else ""
    if problem["type"] in _OF_LISTS:
        message = message.replace("Tuple", "List").replace("tuple", "list")
    return f"{key}: {message}{found}" if key else message + found


def unknown(key: str, known: Iterable[str]) -> str:
    """'section.key: unknown key', with the nearest known name of that section and all of them."""
    names = sorted(known)
    listed = f" Known here: {', '.join(names)}." if names else ""
    return f"{key}: unknown key.{suggest(key.rpartition('.')[2], names)}{listed}"


def undeclared(method: str, declared: Iterable[str]) -> str:
    """That a method is not among those declared, with the nearest of them, or the line that declares a shipped one."""
    known = sorted(declared)
    shipped = yaml.safe_load(_SHIPPED.read_text(encoding="utf-8"))["methods"].get(method)
    if shipped is None:
        near = suggest(method, known)
    else:
        line = yaml.safe_dump(shipped, default_flow_style=True, sort_keys=False, width=1000).strip()
        near = f" The shipped params have it: {method}: {line}."
    return f"method {method!r} is used but not declared under methods.{near} Declared: {', '.join(known)}."
