"""params.yaml as frozen, validated types: ``load(path)`` reads it, every error names the key."""

from sglr.config.doubts import doubts
from sglr.config.reader import ConfigError, load, parse, recorded
from sglr.config.registry import Options, Registry, discover
from sglr.config.strict import Section
from sglr.config.study import Config

__all__ = [
    "Config", "ConfigError", "Options", "Registry", "Section", "discover", "doubts", "load", "parse", "recorded",
]  # fmt: skip
