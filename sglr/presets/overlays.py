"""The preset files in this folder: what they reproduce, what they cost, what they extend."""

import textwrap
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sglr.config import ConfigError, parse
from sglr.config.errors import UserError
from sglr.config.wording import suggest

FOLDER = Path(__file__).parent
BASE = "base"
# Top-level keys of an overlay that are about the preset; all others are sections of params.yaml.
RESERVED = ("about", "cost", "extends")


class PresetError(UserError, ValueError):
    """A preset that cannot be used, or must not be written; the message says why and what to do."""


@dataclass(frozen=True)
class Preset:
    """One preset: what it reproduces, what it costs, and the overlays it adds to the base, in this order."""

    name: str
    about: str
    cost: str
    overlays: tuple[str, ...]


def names() -> list[str]:
    """All presets, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml") if path.stem != BASE)


def listing() -> str:
    """All presets as readable text: name, what it reproduces, cost."""
    wrap = partial(textwrap.fill, width=110, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False)
    presets = map(read, names())
    return "\n".join(f"{preset.name}\n{wrap(preset.about)}\n{wrap(preset.cost)}" for preset in presets)


def text(name: str) -> str:
    """An overlay, or the base, as it is written."""
    return (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")


def read(name: str) -> Preset:
    """The preset called ``name``; PresetError with the nearest name if there is none, or if its file is unusable."""
    return _read(name, above=())


def _read(name: str, above: tuple[str, ...]) -> Preset:
    if name not in names():
        raise PresetError(f"there is no preset {name!r}.{suggest(name, names())} Known: {', '.join(names())}.")
    if name in above:
        raise PresetError(f"preset {name!r} extends itself: {' -> '.join([*above, name])}.")
    try:
        values = parse(text(name), f"preset {name}")
    except ConfigError as error:
        raise PresetError(str(error)) from None
    for key in ("about", "cost"):
        if not isinstance(values.get(key), str):
            raise PresetError(f"preset {name}: {key} must be text, found {values.get(key)!r}.")
    below = values.get("extends")
    if not isinstance(below, str | None):
        raise PresetError(f"preset {name}: extends must be the name of a preset, found {below!r}.")
    overlays = () if below is None else _read(below, (*above, name)).overlays
    return Preset(name, values["about"], values["cost"], (*overlays, name))
