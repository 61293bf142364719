"""Values as MLflow takes them: flat params, plain numbers, names without forbidden characters."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

PARAM_LENGTH = 6000
TAG_LENGTH = 8000
_NAME_LENGTH = 250


def flatten(nested: Mapping[str, Any]) -> dict[str, str]:
    """Nested params as one level of text: ``{"train": {"lr": 0.1}}`` becomes ``{"train.lr": "0.1"}``.

    Text stays as it is; everything else is written as JSON (``null``, ``true``, ``[30, 45]``). Values longer than
    MLflow's 6000 characters are cut and end in an ellipsis.
    """
    return {name(key): shorten(text, PARAM_LENGTH) for key, text in _leaves(nested, "")}


def _leaves(value: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and (value or not key):
        for inner, item in value.items():
            yield from _leaves(item, f"{key}.{inner}" if key else str(inner))
    else:
        yield key, value if isinstance(value, str) else json.dumps(value, default=str)


def name(text: str) -> str:
    """``text`` as a name MLflow accepts: letters, digits, ``_-. :/``, no empty or dotted path parts, 250 characters."""
    parts = [part for part in re.sub(r"[^/\w.\- :]", "_", text).split("/") if part not in ("", ".", "..")]
    return "/".join(parts)[:_NAME_LENGTH].rstrip("/") or "_"


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Metric values as floats under acceptable names; None (not measured) is left out.

    Raises TypeError, with the metric's name, for what is not a number.
    """
    result = {}
    for key, value in values.items():
        if value is None:
            continue
        try:
            result[name(key)] = float(value)
        except (TypeError, ValueError):
            raise TypeError(f"metric {key!r} must be a number, found {value!r}") from None
    return result


def texts(values: Mapping[str, Any], length: int) -> dict[str, str]:
    """Tag or param values as text of at most ``length`` characters under acceptable names."""
    return {name(key): shorten(str(value), length) for key, value in values.items()}


def shorten(text: str, length: int) -> str:
    """``text``, or its beginning and an ellipsis when it is longer than ``length`` characters."""
    return text if len(text) <= length else text[: length - 3] + "..."
