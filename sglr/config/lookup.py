"""Finding the type behind a dotted key, so that an error can say which keys are known there."""

import importlib
from types import UnionType
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel

from sglr.config.fields import ROOMS
from sglr.config.study import Config


def section_type(where: list[Any], values: Any) -> type[BaseModel] | None:
    """The type of the section at a key path, or None where unknown. ``values`` picks among components."""
    current: Any = Config
    room = ""
    for part in where:
        if get_origin(current) is tuple:
            values = values[part]
            current = _resolve(get_args(current)[0], room, values)
            continue
        values = values.get(part) if isinstance(values, dict) else None
        room = ROOMS.get(str(part), room)
        if isinstance(current, type) and issubclass(current, BaseModel):
            if part not in current.model_fields:
                return None
            current = _resolve(current.model_fields[part].annotation, room, values)
        elif get_origin(current) is dict:
            current = _resolve(get_args(current)[1], room, values)
        else:
            return None
    return current if isinstance(current, type) and issubclass(current, BaseModel) else None


def _resolve(annotation: Any, room: str, values: Any) -> Any:
    """The section type behind an annotation: a component's by its name, the one in a union, or itself."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if annotation is Any:
        name = values.get("name") if isinstance(values, dict) else None
        registry = importlib.import_module(room).REGISTRY
        return registry.type_of(name) if name in registry.names() else None
    if isinstance(annotation, UnionType):
        members = [member for member in get_args(annotation) if isinstance(member, type)]
        return next((member for member in members if issubclass(member, BaseModel)), None)
    return annotation
