"""Nested state as a checksum and a safetensors file."""

import hashlib
import json
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sglr.files.atomic_writes import DamagedError, FileError, write_bytes

if TYPE_CHECKING:
    import torch


def save_state(path: str | Path, state: dict[str, Any]) -> None:
    """Write nested state (dicts, lists, tuples, tensors, plain values) as one checksummed file.

    Layout: SHA-256 of the rest (32 bytes), then a safetensors file whose metadata holds everything but the tensors as
    JSON. Nothing in it can run code when read.
    """
    from safetensors.torch import save

    require_storable(state)
    tensors: dict[str, torch.Tensor] = {}
    plain = json.dumps(_pack(state, tensors))
    payload = save(tensors, metadata={"state": plain})
    write_bytes(path, hashlib.sha256(payload).digest() + payload)


def require_storable(state: Any) -> None:
    """TypeError for what ``save_state`` cannot write, or ``load_state`` would give back as something else."""
    import torch

    if type(state) in (dict, OrderedDict):
        for key, value in state.items():
            if not (key is None or isinstance(key, bool | int | float | str)):
                raise TypeError(f"cannot store a key {key!r} in a state file, a {type(key).__name__}")
            require_storable(value)
    elif type(state) in (list, tuple):
        for value in state:
            require_storable(value)
    elif not (state is None or isinstance(state, torch.Tensor | bool | int | float | str)):
        raise TypeError(f"cannot store a {type(state).__name__} in a state file")


def load_state(path: str | Path) -> dict[str, Any]:
    """Read what ``save_state`` wrote; FileError when it cannot be read, DamagedError when it is something else."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise FileError(f"cannot read {path}: {error}") from None
    payload = content[32:]
    if hashlib.sha256(payload).digest() != content[:32]:
        raise DamagedError(f"{path} is damaged (its checksum does not match); delete it to continue.")
    try:
        tensors = load(payload)
        header = json.loads(payload[8 : 8 + int.from_bytes(payload[:8], "little")])
        state = _unpack(json.loads(header["__metadata__"]["state"]), tensors)
    # The checksum is right, and yet save_state did not write it.
    except (SafetensorError, LookupError, ValueError, TypeError, RecursionError) as error:
        raise DamagedError(f"{path} is damaged (not a state file: {error}); delete it to continue.") from None
    if not isinstance(state, dict):
        raise DamagedError(f"{path} is damaged (not a state file); delete it to continue.")
    return state


def _pack(value: Any, tensors: "dict[str, torch.Tensor]") -> Any:
    import torch

    if isinstance(value, torch.Tensor):
        name = f"{len(tensors):06d}"
        # A copy: safetensors refuses tensors that share storage.
        tensors[name] = value.detach().to("cpu", copy=True).contiguous()
        return {"tensor": name}
    if isinstance(value, dict):
        return {"items": [[key, _pack(item, tensors)] for key, item in value.items()]}
    if isinstance(value, list):
        return [_pack(item, tensors) for item in value]
    if isinstance(value, tuple):
        return {"tuple": [_pack(item, tensors) for item in value]}
    return value


def _unpack(value: Any, tensors: "dict[str, torch.Tensor]") -> Any:
    if isinstance(value, list):
        return [_unpack(item, tensors) for item in value]
    if isinstance(value, dict):
        if "tensor" in value:
            return tensors[value["tensor"]]
        if "tuple" in value:
            return tuple(_unpack(item, tensors) for item in value["tuple"])
        return {key: _unpack(item, tensors) for key, item in value["items"]}
    return value
