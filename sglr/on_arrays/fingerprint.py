"""Fingerprints of nested values, modules above all: equal ones compute the same.

They are the same in every process, so that what one measured of a model is found again by the next.
"""

import contextlib
import dis
import enum
import functools
import hashlib
import logging
import re
import sys
import sysconfig
import types
import weakref
from collections.abc import Collection, Iterable, Iterator, Mapping, MappingView, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sglr import files
from sglr.models.checkpoint import unwrap

_PLAIN = (
    bool, int, float, complex, str, bytes, types.NoneType, types.EllipsisType, enum.Enum, Path, range, slice,
    torch.dtype, torch.device, torch.layout, torch.memory_format,
)  # fmt: skip
# Python may or may not reuse one object for equal values of these types, so that identity says nothing.
_SHARED = (tuple, frozenset, types.CodeType)
# What torch keeps in every module by numbers that differ from run to run: hooks, of which the values count.
_HOOKS = frozenset(name for name in vars(nn.Module()) if "hooks" in name)


class OpaqueError(TypeError):
    """A value of which nothing can be told: its message names the value's type."""


def fingerprint(*values: Any) -> str:
    """SHA-256 of tensors, arrays, numbers, texts, modules, functions, containers and objects, however nested.

    Of functions it is their bytecode, defaults and closures that count, and the globals they look up; of those of
    installed packages, and of classes, the name. Raises OpaqueError for values that hide what they hold, such as those
    of extension modules.
    """
    total = hashlib.sha256()
    for part in _parts(values, {}):
        total.update(len(part).to_bytes(8, "big") + part)
    return total.hexdigest()


def _parts(value: Any, seen: dict[int, tuple[int, Any]]) -> Iterator[bytes]:
    """What is told of a value. ``seen``: places of values already told of, by id, and the values: ids are reused."""
    if isinstance(value, _PLAIN):
        yield f"{type(value).__qualname__} {value!r}".encode()
        return
    if isinstance(value, np.generic):
        yield f"{value.dtype} {value.item()!r}".encode()
        return
    if id(value) in seen:
        yield f"seen {seen[id(value)][0]}".encode()
        return
    if not isinstance(value, _SHARED):
        seen[id(value)] = len(seen), value
    yield _name(type(value))
    if isinstance(value, Tensor) and value.layout == torch.strided:
        value = value.detach().cpu().contiguous()
        yield f"{value.dtype} {tuple(value.shape)}".encode() + value.reshape(-1).view(torch.uint8).numpy().tobytes()
    elif isinstance(value, np.ndarray) and not value.dtype.hasobject:
        yield f"{value.dtype.str} {value.shape}".encode() + value.tobytes()
    elif isinstance(value, set | frozenset):
        yield b"".join(sorted(b"".join(_parts(member, dict(seen))) for member in value))
    else:
        for part in _held(value):
            yield from _parts(part, seen)


def _held(value: Any) -> list[Any]:
    """The values that a container or object consists of, in order."""
    if isinstance(value, Mapping):
        return [len(value), *(part for pair in value.items() for part in pair)]
    if isinstance(value, np.ndarray):  # of objects
        return [value.shape, value.tolist()]
    if isinstance(value, MappingView) and isinstance(value, Collection):
        return list(value)
    if isinstance(value, Sequence):
        return [len(value), *value]
    if isinstance(value, type | types.ModuleType):
        return [_name(value)]
    if isinstance(value, types.MethodType):
        return [value.__func__, value.__self__]
    if isinstance(value, types.BuiltinFunctionType):
        owner = value.__self__
        return [_name(value), None if isinstance(owner, types.ModuleType) else owner]
    if isinstance(value, types.FunctionType):
        own = [value.__code__, value.__defaults__, value.__kwdefaults__, value.__closure__]
        return [_name(value), *own, [] if _is_installed(value) else _globals(value)]
    if isinstance(value, types.CellType):
        with contextlib.suppress(ValueError):  # empty
            return [value.cell_contents]
        return []
    if isinstance(value, types.CodeType):
        return [value.co_code, value.co_names, value.co_consts]
    if isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords]
    if isinstance(value, weakref.ref):
        return [value()]
    if isinstance(value, logging.Logger):
        return [value.name]
    if isinstance(value, torch.Generator):
        return [value.get_state()]
    if isinstance(value, torch.jit.ScriptModule):
        # Without the lines of the source, and the numbers that tell classes of one name apart.
        graph = re.sub(r" *#.*|___torch_mangle_\d+\.", "", str(value.inlined_graph))
        return [graph, dict(value.named_parameters()), dict(value.named_buffers())]
    if isinstance(value, nn.Module) and unwrap(value) is not value:
        return [unwrap(value)]
    if isinstance(value, nn.Module):
        held = vars(value)
        return [{name: list(held[name].values()) if name in _HOOKS else held[name] for name in held}]
    slots = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ()) if hasattr(value, name)]
    if hasattr(value, "__dict__") or slots:
        return [getattr(value, "__dict__", {}), [(name, getattr(value, name)) for name in slots]]
    raise OpaqueError(f"{type(value).__module__}.{type(value).__qualname__}")


def _is_installed(function: types.FunctionType) -> bool:
    """Whether a function is of Python's library or an installed package: its name then tells what it looks up."""
    folders = [sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")]
    return Path(function.__code__.co_filename).is_absolute() and function.__code__.co_filename.startswith(
        tuple(folders)
    )


def _globals(function: types.FunctionType) -> list[Any]:
    """The names that a function's code looks up in its module, and their values now: a script's network is one."""
    looked_up = set(_looked_up(function.__code__)) & function.__globals__.keys()
    return [(name, function.__globals__[name]) for name in sorted(looked_up)]


def _looked_up(code: types.CodeType) -> Iterator[str]:
    """The names of globals in code, and in the functions that are made in it."""
    yield from (found.argval for found in dis.get_instructions(code) if found.opname in ("LOAD_GLOBAL", "LOAD_NAME"))
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from _looked_up(inner)


def _name(value: Any) -> bytes:
    return (
        f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', getattr(value, '__name__', ''))}".encode()
    )


def sources(parts: Iterable[Any]) -> dict[str, str]:
    """Digests of the files that define these functions, or the classes of these objects and their bases, by module,
    where those are neither installed nor ours; LookupError with the name of what a notebook defines, without a file."""
    paths = sysconfig.get_paths()
    installed = [Path(paths[name]).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    defined = [part if isinstance(part, types.FunctionType) else type(part) for part in parts]
    found = {}
    for kind in {base for one in defined for base in getattr(one, "__mro__", (one,))}:
        package = kind.__module__.split(".")[0]
        if package in ("sglr", "builtins"):
            continue
        source = getattr(sys.modules.get(kind.__module__), "__file__", None)
        if source is None:
            raise LookupError(kind.__name__)
        if not any(Path(source).resolve().is_relative_to(folder) for folder in installed):
            found[kind.__module__] = files.sha256(source)
    return found
