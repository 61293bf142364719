"""What everything read from params.yaml has in common: nothing unknown, nothing that cannot be computed with."""

from types import UnionType
from typing import Annotated, Any, Self, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, model_validator

# The largest number that float32, in which everything is trained, can hold.
_LARGEST = float.fromhex("0x1.fffffep+127")


class Section(BaseModel):
    """Base of everything read from params.yaml: frozen, strict, no unknown keys, no NaN, infinity or number that
    float32 cannot hold."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        protected_namespaces=(),
        hide_input_in_errors=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _tuples_from_lists(cls, values: Any) -> Any:
        """YAML has lists only; frozen types want tuples."""
        if not isinstance(values, dict):
            return values
        fields = {key: cls.model_fields[key].annotation for key in cls.model_fields.keys() & values.keys()}
        return values | {key: _with_tuples(values[key], kind) for key, kind in fields.items()}

    @model_validator(mode="after")
    def _held_by_float32(self) -> Self:
        for name, value in self:
            values = value if isinstance(value, tuple) else (value,)
            if any(isinstance(number, float) and abs(number) > _LARGEST for number in values):
                raise ValueError(f"{name}: numbers must lie within {_LARGEST:g}, the largest of float32")
        return self


def _with_tuples(value: Any, kind: Any) -> Any:
    """A value with tuples for lists where its type asks for them, however deep; the rest as it is."""
    if not isinstance(value, list):
        return value
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    arguments = get_args(kind)
    if get_origin(kind) in (Union, UnionType):
        kinds = [part for part in arguments if _sequence(part) is not None]
        return _with_tuples(value, kinds[0]) if len(kinds) == 1 else value
    if _sequence(kind) is list:
        return [_with_tuples(part, arguments[0]) for part in value] if arguments else value
    if _sequence(kind) is not tuple:
        return value
    if not arguments or (len(arguments) != len(value) and arguments[-1] is not ...):
        return tuple(value)
    kinds = [arguments[0]] * len(value) if arguments[-1] is ... else list(arguments)
    return tuple(map(_with_tuples, value, kinds))


def _sequence(kind: Any) -> type | None:
    """tuple or list, where a type is one of them; None for all others."""
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    origin = get_origin(kind) or kind
    return origin if origin in (tuple, list) else None
