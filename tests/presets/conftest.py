"""What tests of presets share: the study project of the pipeline's tests, and presets rendered once."""

import sys
from functools import cache
from pathlib import Path

import pytest

from sglr import presets

REPOSITORY = Path(__file__).parents[2]
sys.path.insert(0, str(REPOSITORY / "tests" / "stages"))

import hosting  # noqa: E402 (lies there)

rendered = cache(presets.render)


@pytest.fixture(params=presets.names())
def preset(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Name and text of every preset in turn."""
    return request.param, rendered(request.param)


@pytest.fixture(scope="session")
def warm() -> Path:
    """Folder of a ``python`` that starts stages without loading torch each time."""
    return hosting.warm()
