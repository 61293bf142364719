"""The pinned versions install wherever the project says that it runs."""

import re
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]
LOWEST = "3.11.0"


def pinned() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


def test_the_lowest_python_is_the_one_asked_for():
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert re.fullmatch(r">=3\.11", asked)


def test_every_pinned_version_takes_the_lowest_python():
    """As far as it is installed here; Debian 12 has 3.11.2."""
    installed = {name: version for name, version in pinned().items() if _version(name) == version}
    demands = {name: metadata.metadata(name).get("Requires-Python") or "" for name in installed}
    assert {name: demand for name, demand in demands.items() if not SpecifierSet(demand).contains(LOWEST)} == {}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
