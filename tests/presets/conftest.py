"""What tests of presets share: the study project of the pipeline's tests, and presets rendered once."""

import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from sglr import presets

REPOSITORY = Path(__file__).parents[2]
sys.path.insert(0, str(REPOSITORY / "tests" / "stages"))

import warm_python  # noqa: E402 (lies there)

rendered = cache(presets.render)


@pytest.fixture(params=presets.names())
def preset(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Name and text of every preset in turn."""
    return request.param, rendered(request.param)


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folder of a ``python`` that starts stages without loading torch each time."""
    with warm_python.install(tmp_path_factory.mktemp("warm") / "python") as folder:
        yield folder
