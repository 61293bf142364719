"""The attacks that params request, and whether they can attack the data."""

from typing import Any

from sglr.attacks.registry import REGISTRY
from sglr.config import Config, ConfigError, packages


def require_attackable(config: Config, num_classes: int, shape: tuple[int, int, int]) -> None:
    """Raise ConfigError for an attack that cannot attack models of ``num_classes`` and images (C, H, W), or whose
    package is not installed."""
    for key, options in requested(config).items():
        for package in packages.missing(options.packages):
            raise ConfigError(f"{key} needs the package {package}: pip install {package}, or {_instead(key)}")
    for misfit in misfits(config, num_classes, shape):
        raise ConfigError(misfit)


def misfits(config: Config, num_classes: int, shape: tuple[int, int, int]) -> list[str]:
    """Which attacks cannot attack models of ``num_classes`` and images (C, H, W), why, and what to do."""
    reasons = {
        key: options.misfit(num_classes, shape, config.threat.norm) for key, options in requested(config).items()
    }
    return [f"{key} cannot be run on this data: {reason}; {_instead(key)}" for key, reason in reasons.items() if reason]


def _instead(key: str) -> str:
    return "set it to null" if key == "evaluate.sanity" else "leave it out"


def requested(config: Config) -> dict[str, Any]:
    """Options of every attack that an evaluation runs, by the key of params.yaml that requests it."""
    found = {f"evaluate.attacks.{name}": options for name, options in config.evaluate.attacks.items()}
    return found if config.evaluate.sanity is None else found | {"evaluate.sanity": REGISTRY.options("square")}
