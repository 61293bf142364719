"""Which packages are installed, without importing them; components name those that they need."""

import importlib.metadata
from collections.abc import Iterable


def version(package: str) -> str | None:
    """The installed version of a package, by its name for pip; None where it is missing."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def missing(packages: Iterable[str]) -> list[str]:
    """Those of the packages that are not installed."""
    return [package for package in packages if version(package) is None]
