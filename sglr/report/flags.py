"""Flags in words: those that several models raise alike are one sentence."""

import re
from typing import Any

_NAMED = 3
# "last: ...", or "last/pgd20: ..." of an attack.
_OF_A_CHECKPOINT = re.compile(r"(best|last)(: |/)")


def raised(flags: list[dict[str, Any]]) -> list[str]:
    """'at-0/last: no gradient', or '6 models (at-0/best, at-0/last, at-1/best ...): pgd20: ...', in the order raised.

    flags: rows of ``method``, ``seed`` and ``flag``, which may begin with the checkpoint that it is about.
    """
    found: dict[str, list[str]] = {}
    for row in flags:
        item = f"{row['method']}-{row['seed']}"
        if about := _OF_A_CHECKPOINT.match(row["flag"]):
            found.setdefault(row["flag"][about.end() :], []).append(f"{item}/{about[1]}")
        else:
            found.setdefault(row["flag"], []).append(item)
    return [f"{_models(models)}: {text}" for text, models in found.items()]


def _models(names: list[str]) -> str:
    if len(names) <= _NAMED:
        return ", ".join(names)
    return f"{len(names)} models ({', '.join(names[:_NAMED])} ...)"
