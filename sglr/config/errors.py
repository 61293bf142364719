"""The one error a bad configuration ends in."""

import difflib
from collections.abc import Iterable


class ConfigError(ValueError):
    """A value in params.yaml that cannot be used; the message names key, value and what is allowed."""


def suggest(word: str, known: Iterable[str]) -> str:
    """' Did you mean 'x'?' for the known name nearest to ``word``, or '' when none is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" Did you mean {near[0]!r}?" if near else ""
