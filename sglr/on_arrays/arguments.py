"""What a Python caller gives instead of a params.yaml: the threat model, and changes of the shipped params."""

import copy
import itertools
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from sglr.config import Config, ConfigError, doubts, parse
from sglr.config.reader import validate
from sglr.threat import L2, Linf, Threat

SHIPPED = Path(__file__).parents[1] / "presets" / "base.yaml"
# From `validated` up to a caller's line: what makes the config, `train` or `robustness`, their decorator.
_STACKLEVEL = 5


def params(path: str | Path | None) -> dict[str, Any]:
    """The plain values of a params file (None: the shipped one); ConfigError where it cannot be read."""
    source = SHIPPED if path is None else Path(path)
    try:
        return parse(source.read_text(encoding="utf-8"), str(source))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {source}: {error}") from None


def with_threat(
    values: dict[str, Any], threat: Threat | None, path: str | Path | None, changes: Mapping[str, Any], what: str
) -> None:
    """Put the threat model into the params; ConfigError where a caller gives none, or gives it twice.

    The shipped file's radius is no default: results depend on it more than on anything else. The radii of its sweep
    are in proportion to it, and follow the one that is given, here or among the changes.
    """
    radius = _plain(_radius(changes))
    # Left to the config to refuse.
    misspelt = {key for key in changes if key.startswith("threat.")} - {"threat.norm", "threat.eps_255"}
    if threat is not None:
        if any(key.split(".")[0] == "threat" for key in changes):
            raise ConfigError(f"{what}: the threat model is given twice, as threat= and among the changes")
        norms = {Linf: "linf", L2: "l2"}
        if type(threat) not in norms:
            raise ConfigError(f"{what}: threat must be sglr.threat.Linf or sglr.threat.L2, found {threat!r}")
        radius = float(threat.eps) * 255
        if radius == 0:
            raise ConfigError(f"{what}: a threat model of radius 0 allows no attack")
    elif path is None and radius is None and not misspelt:
        raise ConfigError(f"{what}: give the threat model, such as threat=sglr.threat.Linf(8 / 255), or params=")
    if path is None and isinstance(radius, int | float):
        sweep, shipped = values["evaluate"]["sweep"], values["threat"]["eps_255"]
        put(values, "evaluate.sweep.eps_255", [eps / shipped * radius for eps in sweep["eps_255"]])
    if threat is not None:
        put(values, "threat", {"norm": norms[type(threat)], "eps_255": radius})


def _radius(changes: Mapping[str, Any]) -> Any:
    """What changes make of the radius, in 255ths; None where they leave it."""
    section = changes.get("threat")
    return changes.get("threat.eps_255", section.get("eps_255") if isinstance(section, Mapping) else section)


def validated(
    values: dict[str, Any], path: str | Path | None, changes: Mapping[str, Any], used: Sequence[str], what: str,
    *, threat: Threat | None,
) -> Config:  # fmt: skip
    """The config; what is probably not meant in the sections used is a warning, of the line that calls ``train`` or
    ``robustness``."""
    try:
        config = validate(values, what if path is None else str(path))
    except ConfigError as error:
        # A nested dict is the usual slip.
        whole = [key for key, value in changes.items() if isinstance(value, Mapping) and f"{key}." in str(error)]
        if not whole or "missing" not in str(error):
            raise
        known = [key for key in changes[whole[0]] if f"{whole[0]}.{key}: unknown key" not in str(error)]
        raise ConfigError(
            f"{error}\nchanges replace {', '.join(whole)} as a whole; name single values instead"
            + (f", such as '{whole[0]}.{known[0]}'." if known else ".")
        ) from None
    for doubt in doubts(config):
        said_before = isinstance(threat, Linf) and threat.eps > 1 and doubt.startswith("threat.eps_255 ")
        if _below(doubt.split()[0], used) and not said_before:
            warnings.warn(doubt, stacklevel=_STACKLEVEL)
    return config


def as_changes(changes: Any) -> dict[str, Any]:
    """A copy of a caller's changes; TypeError where they are no mapping from dotted keys."""
    if not isinstance(changes, Mapping | None):
        raise TypeError(f"changes must be a dict such as {{'train.epochs': 30}}, found {type(changes).__name__}")
    if others := [key for key in changes or {} if not isinstance(key, str)]:
        raise TypeError(f"changes name values by dotted keys such as 'train.epochs', found {others[0]!r}")
    return dict(changes or {})


def require_used(changes: Mapping[str, Any], used: Iterable[str], unused: Iterable[str], what: str) -> None:
    """ConfigError for changes that play no part; what is no key of params at all is left to the config to refuse.

    used, unused: dotted keys of sections, and exceptions in them; ``what``: who uses them.
    """
    idle = [
        key
        for key in itertools.chain.from_iterable(_leaves(key, value) for key, value in changes.items())
        if key.split(".")[0] in Config.model_fields and (not _below(key, used) or _below(key, unused))
    ]
    if idle:
        exceptions = f", but for {', '.join(unused)}" if unused else ""
        raise ConfigError(
            f"changes: {', '.join(idle)} would have no effect: {what}, which is given its data, uses only"
            f" {', '.join(used)}{exceptions}. Leave out the rest."
        )


def put(values: dict[str, Any], key: str, value: Any) -> None:
    """Put a value at a dotted key; a section on the way that is missing is made, and refused later if unknown."""
    *sections, last = key.split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise ConfigError(f"{key}: {section} is not a section")
    values[last] = _plain(value)


def _plain(value: Any) -> Any:
    """A copy, into which later changes may go, with Python's numbers for NumPy's and torch's."""
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, np.generic | np.ndarray | Tensor):
        return value.tolist()
    return copy.deepcopy(value)


def _below(key: str, sections: Iterable[str]) -> bool:
    return any(f"{key}.".startswith(f"{section}.") for section in sections)


def _leaves(key: str, value: Any) -> Iterator[str]:
    """The dotted keys of all values under a key."""
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _leaves(f"{key}.{name}", inner)
    else:
        yield key
