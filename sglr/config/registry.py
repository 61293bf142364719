"""Components (models, sources, augmentations, schedules, attacks, objectives, label and weight policies) found by name.

A room of components holds one ``REGISTRY``. A component is one file in that room: a frozen ``Options`` type with its
options, registered under the name params.yaml uses, and a method that makes the thing itself (``build``, of sources
``read``) or is it (``rate`` of schedules). In params.yaml it is written ``{name: refinement, alpha: 0.9}``, or just
``refinement`` where every option has a default.
"""

import importlib
import pkgutil
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Self, TypeVar

from pydantic import BeforeValidator, ValidationError
from pydantic_core import PydanticCustomError

from sglr.config.errors import ConfigError, said, unknown
from sglr.config.strict import Section
from sglr.config.wording import suggest


class Options(Section):
    """The options of a component. Subclasses add fields and the method that builds the component."""

    title: ClassVar[str] = ""
    """What it is called, where its name does not say it; the report shows it."""

    name: str

    def for_seed(self, seed: int) -> Self:
        """The options as a run of this seed has them: for components that use something of each seed's own, such as a
        file that was made with it. Asked of objectives, label and weight policies."""
        return self


OptionsT = TypeVar("OptionsT", bound=type[Options])


class Registry:
    """Names of one kind of component and the options type of each."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._types: dict[str, type[Options]] = {}

    def register(self, *names: str) -> Callable[[OptionsT], OptionsT]:
        """Class decorator: make the options type available under each of ``names``."""

        def decorate(options: OptionsT) -> OptionsT:
            for name in names:
                if name in self._types and not _again(self._types[name], options):
                    raise ValueError(f"two {self.kind}s are called {name!r}")
                self._types[name] = options
            return options

        return decorate

    def names(self) -> list[str]:
        """All registered names, sorted."""
        return sorted(self._types)

    def type_of(self, name: str) -> type[Options]:
        """The options type called ``name``; ConfigError with the nearest known name otherwise."""
        if name not in self._types:
            raise ConfigError(
                f"unknown {self.kind} {name!r}.{suggest(name, self._types)} Known: {', '.join(self.names())}."
            )
        return self._types[name]

    def options(self, name: str, **values: Any) -> Any:
        """Validated options of component ``name``; for use from Python, where params.yaml is not involved.

        ConfigError for an unknown name, and for values that do not fit.
        """
        try:
            return self.type_of(name).model_validate({"name": name, **values})
        except ValidationError as error:
            known = self.type_of(name).model_fields.keys() - {"name"}
            problems = [
                unknown(key, known) if problem["type"] == "extra_forbidden" else said(problem, key)
                for problem in error.errors()
                for key in [".".join(map(str, problem["loc"]))]
            ]
            raise ConfigError(f"{self.kind} {name!r}: {'; '.join(problems)}") from None


def discover(package: str, path: Iterable[str]) -> None:
    """Import every module of a room, so that each component file registers itself."""
    for module in pkgutil.iter_modules(path):
        importlib.import_module(f"{package}.{module.name}")


def in_room(room: str) -> BeforeValidator:
    """Validator for a config field that holds a component of ``room``.

    The room is imported when a value is validated, not when the config room is: names are checked at load, while a
    stage's code depends only on the rooms it imports itself.
    """

    def resolve(value: Any) -> Options:
        registry: Registry = importlib.import_module(room).REGISTRY
        if isinstance(value, Options):
            return value
        if isinstance(value, str):
            value = {"name": value}
        if not isinstance(value, dict) or not isinstance(value.get("name"), str):
            raise PydanticCustomError(
                "component",
                "expected the name of {kind}, or a mapping with a 'name'; known: {known}",
                {"kind": _with_article(registry.kind), "known": ", ".join(registry.names())},
            )
        try:
            options = registry.type_of(value["name"])
        except ConfigError as error:
            raise PydanticCustomError("component", "{message}", {"message": str(error)}) from None
        return options.model_validate(value)

    return BeforeValidator(resolve)


def _again(known: type[Options], options: type[Options]) -> bool:
    """Whether a class of a script or notebook is defined once more, as when a cell is run again."""
    name = (options.__module__, options.__qualname__)
    return options.__module__ == "__main__" and name == (known.__module__, known.__qualname__)


def _with_article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
