"""Flags in words: those that several models raise alike are one sentence."""

from typing import Any

_NAMED = 3


def raised(flags: list[dict[str, Any]]) -> list[str]:
    """'at-0/last: no gradient', or '6 models (at-0/best, at-0/last, at-1/best ...): ...', in the order first raised.

    flags: rows of ``method``, ``seed`` and ``flag``, which may begin with the checkpoint that it is about.
    """
    found: dict[str, list[str]] = {}
    for row in flags:
        item, (checkpoint, colon, text) = f"{row['method']}-{row['seed']}", row["flag"].partition(": ")
        if colon and checkpoint in ("best", "last"):
            found.setdefault(text, []).append(f"{item}/{checkpoint}")
        else:
            found.setdefault(row["flag"], []).append(item)
    return [f"{_models(models)}: {text}" for text, models in found.items()]


def _models(names: list[str]) -> str:
    if len(names) <= _NAMED:
        return ", ".join(names)
    return f"{len(names)} models ({', '.join(names[:_NAMED])} ...)"
