"""params.yaml as frozen, validated types: ``load(path)`` reads it, every error names the key."""

from sglr.config.reader import ConfigError, load, parse
from sglr.config.registry import Options, Registry, discover
from sglr.config.sections import Config, Section

__all__ = ["Config", "ConfigError", "Options", "Registry", "Section", "discover", "load", "parse"]
