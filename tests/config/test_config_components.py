"""Components as users write them: options with tuples, classes that are defined again."""

from typing import Annotated

import pytest
from pydantic import Field

from sglr.config import ConfigError, Options, Registry

Whole = Annotated[int, Field(ge=0)]


class Many(Options):
    plain: tuple[int, ...] = (1, 2)
    pair: Annotated[tuple[Whole, Whole], Field()] = (3, 4)
    perhaps: tuple[float, ...] | None = None
    listed: list[int] = []  # noqa: RUF012 (pydantic copies it)
    bounded: Annotated[tuple[int, ...], Field(min_length=1)] | None = None
    nested: tuple[tuple[int, int], ...] = ()
    lists: tuple[list[int], ...] = ()
    either: tuple[int, ...] | list[int] | None = None


@pytest.fixture
def registry() -> Registry:
    made = Registry("part")
    made.register("many")(Many)
    return made


def test_lists_of_yaml_are_tuples_of_options(registry: Registry):
    found = registry.options("many", plain=[5], pair=[6, 7], perhaps=[0.5], listed=[8])
    assert (found.plain, found.pair, found.perhaps, found.listed) == ((5,), (6, 7), (0.5,), [8])
    assert registry.options("many", **registry.options("many").model_dump(mode="json", exclude={"name"})) is not None
    nested = registry.options("many", bounded=[1], nested=[[1, 2], [3, 4]], lists=[[1], [2, 3]], either=[4])
    assert (nested.bounded, nested.nested, nested.lists, nested.either) == ((1,), ((1, 2), (3, 4)), ([1], [2, 3]), [4])
    assert registry.options("many", **nested.model_dump(mode="json", exclude={"name"})) == nested
    for wrong in ({"bounded": []}, {"nested": [[1]]}, {"nested": [3]}, {"lists": [3]}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            registry.options("many", **wrong)
    for wrong in ({"plain": ["5"]}, {"pair": [1]}, {"pair": [1, -1]}, {"plain": 5}, {"listed": (1,)}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            registry.options("many", **wrong)


def defined(module: str, name: str = "Mine") -> type[Options]:
    return type(name, (Options,), {"__module__": module, "__qualname__": name})


def test_a_cell_of_a_notebook_can_be_run_again(registry: Registry):
    first, again = defined("__main__"), defined("__main__")
    registry.register("mine")(first)
    registry.register("mine")(again)
    assert registry.type_of("mine") is again
    for other in (defined("__main__", "Other"), defined("elsewhere")):
        with pytest.raises(ValueError, match="two parts are called 'mine'"):
            registry.register("mine")(other)
    registry.register("theirs")(defined("elsewhere"))
    with pytest.raises(ValueError, match="two parts are called 'theirs'"):
        registry.register("theirs")(defined("elsewhere"))
