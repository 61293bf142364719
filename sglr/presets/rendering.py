"""A preset as the text of a params.yaml: the base with the overlays' values, and with the base's comments."""

import io
from typing import Any

from sglr.config import ConfigError, parse
from sglr.config.reader import validate
from sglr.presets import overlays
from sglr.presets.overlays import PresetError

# ruamel.yaml's mapping with comments; it is imported when a preset is rendered.
Mapping = Any


def render(name: str) -> str:
    """The params.yaml of a preset, valid and with the comments of the shipped one.

    An overlay's mappings are merged into those below, everything else replaces what is there. A component of another
    name (data source, model, schedule, policy ...) drops the options of the one it replaces. If a preset lists
    methods the others are left out, so that none keeps the settings of another study.

    Raises PresetError for an unknown or unusable preset, and without ruamel.yaml.
    """
    preset = overlays.read(name)
    yaml = _round_trip()
    params = yaml.load(overlays.text(overlays.BASE))
    as_shipped = params["experiment"]["methods"]
    for part in preset.overlays:
        overlay = yaml.load(overlays.text(part))
        _merge(params, {key: value for key, value in overlay.items() if key not in overlays.RESERVED}, overlay.ca.items)
    try:
        config = validate(parse(_dump(yaml, params), f"preset {name}"), f"preset {name}")
    except ConfigError as error:
        raise PresetError(str(error)) from None
    if params["experiment"]["methods"] is not as_shipped:
        _keep(params["methods"], {*config.experiment.methods, config.report.baseline})
    return _dump(yaml, params)


def _merge(below: Mapping, above: Mapping, comments: dict[Any, Any]) -> None:
    for key, value in above.items():
        old = below.get(key)
        if _is_mapping(old) and _is_mapping(value):
            # The experiment's name is a title, every other name that of a component.
            if key != "experiment" and "name" in value and value["name"] != old.get("name"):
                _keep(old, set(value))
            _merge(old, value, value.ca.items)
        else:
            below[key] = _laid_out(value)
            if key in comments:
                below.ca.items[key] = comments[key]


def _laid_out(value: Any) -> Any:
    """A mapping that holds mappings gets a line for each key, as in the base; small ones stay on one line."""
    if _is_mapping(value) and any(map(_is_mapping, value.values())):
        value.fa.set_block_style()
    return value


def _is_mapping(value: Any) -> bool:
    return isinstance(value, dict)


def _keep(mapping: Mapping, keys: set[Any]) -> None:
    for key in [key for key in mapping if key not in keys]:
        del mapping[key]


def _dump(yaml: Any, params: Mapping) -> str:
    written = io.StringIO()
    yaml.dump(params, written)
    lines = [line.rstrip() for line in written.getvalue().splitlines() if line.strip()]
    # One blank line before each section: ruamel.yaml hangs blank lines on the value before, which may be gone.
    return "".join(("\n" if line[0] not in " #" else "") + line + "\n" for line in lines)


def _round_trip() -> Any:
    """A YAML reader and writer that keeps comments, quotes, flow style and the spelling of numbers."""
    try:
        from ruamel.yaml import YAML
        from ruamel.yaml.representer import RoundTripRepresenter
    except ImportError:
        raise PresetError(
            "presets are written with ruamel.yaml, which comes with DVC and is missing: pip install 'sglr[pipeline]'."
        ) from None

    class Representer(RoundTripRepresenter):
        """Writes null as `null`, not as nothing."""

    Representer.add_representer(type(None), lambda self, _: self.represent_scalar("tag:yaml.org,2002:null", "null"))
    yaml = YAML()
    yaml.Representer = Representer
    yaml.preserve_quotes = True
    yaml.width = 120
    return yaml
