"""The reference of params.yaml as Markdown: every key with what is allowed, its value as shipped, and its comment.

What is allowed comes from the types of ``sglr.config`` and of the registered components, the rest from params.yaml.
"""

import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from sglr.config import Config, Registry
from sglr.config.fields import ROOMS
from sglr.config.sections import Method

PARAMS = Path(__file__).resolve().parents[1] / "params.yaml"
# Where a key of params.yaml holds a component: the room it is found in, and the page's heading for it.
TITLES = {
    "source": "Data sources", "more": "Augmentations", "model": "Models", "attacks": "Attacks",
    "objective": "Objectives", "labels": "Label policies", "weights": "Weight policies",
    "schedule": "Learning-rate schedules",
}  # fmt: skip
# Of keys and options that params.yaml does not show or does not explain; a test holds that each is needed.
MEANINGS = {
    "methods.<name>.objective": "what is forwarded, what the attack maximises, how targets become a loss",
    "methods.<name>.labels": "what the training target is",
    "methods.<name>.weights": "what happens to the weights besides the optimiser's step",
    "data.noisy_validation": "true: validation labels are as wrong as those of training, and the best epoch and the"
    " temperature are chosen by them; false: they are true",
    "methods.<name>.start": "with the warm-up's weights, or with the seed's initial ones",
    "data.augment.more": "what else is done to each image, after crop and flip, in this order",
    "more.cutout.size": "side of the square in pixels, less than the images' longer side",
    "source.*.given": "path of an npz with `given` (labels to train on, as of CIFAR-10N) and `clean` (the official"
    " ones, compared); null: the official labels",
    "source.folders.path": "of the folder with `train` and the test images, found as an npz's is",
    "source.folders.test": "name of the folder of test images in it",
    "source.folders.channels": "3: colour, 1: grey",
    "source.folders.size": "side in pixels to which images are scaled; null: all are of one size",
    "source.npz.path": "of the archive, absolute or relative to the project or to `SGLR_DATA_ROOT`",
    "model.*.normalization": "per channel, of images in [0, 1]; the model's first layer",
    "model.small_cnn.batch_norm": "batch norm after each convolution",
    "model.*.activation": "between the layers; weights of either have the same names",
    "model.wrn.depth": "6 n + 4: 10, 16, 22, 28, 34, ...",
    "model.wrn.width": "widening factor",
    "attacks.*.n_examples": "number of test examples, from the first; null: as many as the suite",
    "attacks.*.loss": "the loss to maximise",
    "attacks.*.restarts": "the worst case per example counts",
    "attacks.apgd.steps": "gradient steps",
    "attacks.square.queries": "forward passes per example, at most",
    "labels.*.start_epoch": "the policy begins with this epoch, counted from 1; hard labels before",
    "labels.refinement.hard_targets": "targets take the refined label's largest class, one-hot: a control",
    "labels.*.momentum": "share of the old table in each update",
    "labels.ensembling.ramp_epochs": "epochs over which the penalty rises to its weight",
    "labels.ensembling.weight": "final weight of the penalty",
    "labels.self_distillation.first_temperature": "by which the teacher's logits are divided in the first step",
    "labels.self_distillation.last_temperature": "and at the end",
    "labels.self_distillation.first_share": "of the teacher's prediction, where it is right, in the first targets",
    "labels.self_distillation.last_share": "and at the end",
    "weights.*.start_epoch": "the policy begins with this epoch, counted from 1",
    "weights.*.buffers": "batch statistics: averaged like the weights, copied from the live model, or recomputed",
    "weights.several.of": "the policies; one at most is an average",
    "schedule.*.rise_epochs": "epochs in which the rate rises from 0; then it falls to 0 at the end",
}
HEADER = "| key | allowed | as shipped | meaning |\n|---|---|---|---|"
OPTIONS = "| option | allowed | default | meaning |\n|---|---|---|---|"


def markdown() -> str:
    """All sections of params.yaml, then all components."""
    params = YAML().load(PARAMS.read_text(encoding="utf-8"))
    parts = []
    for name, field in Config.model_fields.items():
        about = _comment(params, name)
        parts.append(f"## {name}\n\n{about[:1].upper()}{about[1:]}.")
        if name == "methods":
            parts.append(f"{HEADER}\n" + "\n".join(_rows(Method, CommentedMap(), "methods.<name>")))
        elif name == "model":
            parts.append(f"{HEADER}\n" + _row("model", field, params["model"], "name and options"))
        else:
            parts.append(f"{HEADER}\n" + "\n".join(_rows(field.annotation, params[name], name)))
    described = list(_commented(params))
    for kind, title in TITLES.items():
        registry: Registry = importlib.import_module(ROOMS[kind]).REGISTRY
        parts.append(f"## {title}")
        for name in registry.names():
            options = registry.type_of(name)
            parts.append(f"### {name}\n\n{_docstring(options)}")
            rows = [_option(key, field, kind, name, described) for key, field in _fields(options) if key != "name"]
            parts.append(f"{OPTIONS}\n" + "\n".join(rows) if rows else "")
    return "\n\n".join(part for part in parts if part.strip()) + "\n"


def _rows(section: Any, values: Any, where: str) -> Iterator[str]:
    """A row for every key of a section, and of the sections in it."""
    for key, field in _fields(section):
        value = values.get(key, PydanticUndefined) if isinstance(values, dict) else PydanticUndefined
        comment = _comment(values, key)
        yield _row(f"{where}.{key}", field, value, comment)
        inner = _section(field.annotation)
        if inner:
            yield from _rows(inner, value if isinstance(value, dict) else CommentedMap(), f"{where}.{key}")


def _row(key: str, field: FieldInfo, value: Any, comment: str) -> str:
    shown = "" if isinstance(value, CommentedMap) or value is PydanticUndefined else _shown(value)
    if value is PydanticUndefined and field.default is not PydanticUndefined:
        shown = f"{_shown(field.default)} (default)"
    return f"| `{key}` | {allowed(field)} | {shown} | {_cell(comment or MEANINGS.get(key, ''))} |"


def _option(key: str, field: FieldInfo, kind: str, name: str, described: list[tuple[str, str, str, str]]) -> str:
    meaning = MEANINGS.get(f"{kind}.*.{key}", MEANINGS.get(f"{kind}.{name}.{key}"))
    if meaning is None:
        meaning = next((text for *where, text in described if where == [kind, name, key]), "")
    default = "required" if field.is_required() else _shown(field.default)
    return f"| `{key}` | {allowed(field)} | {default} | {_cell(meaning)} |"


def allowed(field: FieldInfo) -> str:
    """What a field takes, in words."""
    kind = next((kind for kind, room in ROOMS.items() if room in _rooms(field)), None)
    if kind:
        many = get_origin(field.annotation) is dict
        words = f"[{TITLES[kind].lower()}](#{TITLES[kind].lower().replace(' ', '-')})"
        if get_origin(field.annotation) is tuple:
            return f"list of {words}"
        return f"name: one of the {words}, by names of your own" if many else f"one of the {words}"
    section = _section(field.annotation)
    if section:
        words = f"section: {', '.join(section.model_fields)}"
        return words + (" or `null`" if type(None) in _members(field.annotation) else "")
    annotated = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
    return _cell(_words(TypeAdapter(annotated).json_schema()))


def _words(schema: dict[str, Any]) -> str:
    """A JSON schema in words."""
    if "anyOf" in schema:
        return " or ".join(_words(one) for one in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    kind = schema.get("type")
    if kind == "array":
        fixed = schema.get("prefixItems")
        if fixed:
            return f"list of {len(fixed)}: {_words(fixed[0])}"
        least = f", at least {schema['minItems']}" if schema.get("minItems") else ""
        return f"list: {_words(schema.get('items', {}))}{least}"
    if kind == "object":
        return f"mapping to {_words(schema.get('additionalProperties') or {})}"
    if kind == "string":
        return f"text `{schema['pattern']}`" if "pattern" in schema else "text"
    names = {"integer": "whole number", "number": "number", "boolean": "`true`, `false`", "null": "`null`"}
    limits = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    # Bounds that no one would meet (the largest seed) say nothing.
    bounds = [f"{sign} {schema[key]:g}" for key, sign in limits.items() if schema.get(key, 1e9) < 1e6]
    return f"{names.get(str(kind), 'anything')} {', '.join(bounds)}".strip()


def _commented(params: CommentedMap) -> Iterator[tuple[str, str, str, str]]:
    """(kind, component, option, comment) for every option of a component that has a comment in the file.

    A comment behind a component on one line is that of its option, if it has one only.
    """

    def walk(values: Any, kind: str) -> Iterator[tuple[str, str, str, str]]:
        if not isinstance(values, CommentedMap):
            return
        for key, value in values.items():
            if kind and "name" in values and key != "name" and _comment(values, key):
                yield kind, str(values["name"]), str(key), _comment(values, key)
            if key in ROOMS and isinstance(value, CommentedMap) and value.fa.flow_style() and len(value) == 2:
                option = next(str(one) for one in value if one != "name")
                if _comment(values, key):
                    yield str(key), str(value["name"]), option, _comment(values, key)
            yield from walk(value, str(key) if str(key) in ROOMS else kind)

    yield from walk(params, "")


def _comment(values: Any, key: str) -> str:
    """The comment behind a key, without its hash."""
    if not isinstance(values, CommentedMap):
        return ""
    tokens = values.ca.items.get(key) or []
    value = values.get(key)
    if isinstance(value, CommentedMap) and value.fa.flow_style():
        tokens = [*tokens, *(token for found in value.ca.items.values() for token in found)]
    flat = [one for token in tokens if token for one in (token if isinstance(token, list) else [token])]
    return flat[0].value.split("\n")[0].strip().removeprefix("#").strip() if flat else ""


def _fields(section: Any) -> Iterator[tuple[str, FieldInfo]]:
    yield from section.model_fields.items()


def _members(annotation: Any) -> tuple[Any, ...]:
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return get_args(annotation) if get_origin(annotation) in (UnionType, Union) else (annotation,)


def _section(annotation: Any) -> type[BaseModel] | None:
    """The section that a key holds, or may hold; None where it holds none."""
    kinds = (one for one in _members(annotation) if inspect.isclass(one) and issubclass(one, BaseModel))
    return next(kinds, None)


def _rooms(field: FieldInfo) -> list[str]:
    """The rooms in which validators of the field look for a component."""
    inner = {dict: 1, tuple: 0}.get(get_origin(field.annotation))  # where the type of what it holds stands
    inner = None if inner is None else get_args(field.annotation)[inner]
    metadata = [*field.metadata, *(get_args(inner)[1:] if get_origin(inner) is Annotated else ())]
    functions = [one.func for one in metadata if inspect.isfunction(getattr(one, "func", None))]
    found = [inspect.getclosurevars(function).nonlocals.get("room") for function in functions]
    return [str(room) for room in found if room]


def _docstring(options: type[BaseModel]) -> str:
    return (inspect.getdoc(options) or "").replace("``", "`")


def _shown(value: Any) -> str:
    if value is None:
        return "`null`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, list | tuple):
        return f"`[{', '.join(str(one) for one in value)}]`"
    return f"`{value}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    print(markdown())
