"""Reading a file of weights from elsewhere: nothing in it is executed, and it expands to no more than its size."""

import contextlib
import pickle
import re
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sglr.config.wording import some
from sglr.files import FileError

# In this order; for a file with several of them the user must choose.
CONTAINERS = ("state_dict", "model_state_dict", "model", "net")
# The largest networks of the field take 1 GB, with their optimiser's state three times that.
MAX_BYTES = 8 * 2**30
_MAX_MEMBERS = 100_000
# What often stands beside the weights and has none: NumPy's numbers and arrays, such as the best accuracy or the state
# of its random numbers, as NumPy 1 and 2 call what makes them, and the arguments of a script.
_BESIDE = (
    *(f"{core}.multiarray.{maker}" for core in ("numpy.core", "numpy._core") for maker in ("scalar", "_reconstruct")),
    "numpy.dtype",
    "numpy.ndarray",
    "argparse.Namespace",
)


class _Blank:
    """Stands in for any object of ``_BESIDE``: whatever the file would make one from is let go."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


def read_tensors(path: str | Path, key: str | None = None) -> dict[str, Tensor]:
    """Named tensors on the CPU, as a file holds them: safetensors, or what ``torch.save`` wrote.

    A torch file holds the tensors themselves or a mapping with them under ``key`` (None: state_dict, model_state_dict,
    model or net, whichever is there). Only tensors and plain values are unpickled; NumPy's numbers and arrays beside
    them, and the arguments of a script, are passed over. Raises FileError for a file that is missing, damaged, larger
    than 8 GiB or compressed to less than its content, that holds code, other objects, or sparse or meta tensors, or in
    which no weights are found.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror or error}") from None
    if not path.is_file():
        raise FileError(f"{path} is not a file of weights.")
    if size > MAX_BYTES:
        raise FileError(f"{path} has {size:,} bytes; files of weights of up to {MAX_BYTES:,} are read.")
    if path.suffix == ".safetensors":
        if key is not None:
            raise FileError(
                f"{path} is a safetensors file, which has no parts to choose from; leave out the key {key!r}."
            )
        return _safetensors(path)
    _refuse_packed(path, size)
    found = _tensors(path, _unpickled(path), key)
    _refuse_hollow(path, found)
    _refuse_unbacked(path, size, found)
    return found


def _refuse_hollow(path: Path, found: dict[str, Tensor]) -> None:
    """No tensor whose values the file does not hold one by one."""
    hollow = [name for name, tensor in found.items() if tensor.layout != torch.strided or tensor.is_meta]
    if hollow:
        raise FileError(
            f"{path} is refused: {hollow[0]} is a sparse tensor, or one on the meta device, which has no values. Save"
            " the state dict of the network with its values (to_dense() makes a sparse tensor an ordinary one)."
        )


def _refuse_unbacked(path: Path, size: int, found: dict[str, Tensor]) -> None:
    """torch 2.6 trusts the tensor sizes that a file states: data beyond the file's end is not its own."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in found.values()}
    if sum(storages.values()) > size:
        raise FileError(f"{path} is refused: its tensors claim {sum(storages.values()):,} bytes, it has {size:,}.")


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(path.read_bytes())
    # A header that lies about a type ends in a KeyError.
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise FileError(f"cannot read {path}: it is damaged or not a safetensors file ({error}).") from None


def _refuse_packed(path: Path, size: int) -> None:
    """torch.save stores its archive's members as they are: their sizes add up to less than the file's."""
    with path.open("rb") as file:
        start = file.read(512)
    if start[257:262] == b"ustar":
        raise FileError(
            f"{path} is a tar archive (torch before 0.1.10, or another program); unpack it, or save it again."
        )
    if start.startswith(b"version https://git-lfs"):
        raise FileError(f"{path} is a pointer of git-lfs, not the file itself: `git lfs pull` fetches it.")
    if start.lstrip()[:1] == b"<":
        raise FileError(f"{path} is a web page, not a file of weights: the download did not work.")
    if not start.startswith(b"PK"):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (OSError, zipfile.BadZipFile, ValueError) as error:
        raise FileError(f"cannot read {path}: it is damaged ({error}).") from None
    if any("/code/" in member.filename for member in members):
        raise FileError(
            f"{path} is refused: it is a TorchScript program, which would have to be run. Save the state dict of the"
            " network alone (torch.save(model.state_dict(), ...)) where it was made."
        )
    compressed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
    if compressed or len(members) > _MAX_MEMBERS or sum(member.file_size for member in members) > size:
        raise FileError(
            f"{path} is refused: it is a packed archive that expands to more than its size, not a file of torch.save."
        )


@contextlib.contextmanager
def _allowing(names: Iterable[str]) -> Iterator[None]:
    """Torch takes the named objects for blank ones, and of others those alone that it allows by itself."""
    before = torch.serialization.get_safe_globals()
    blank: list[Any] = [(_Blank, name) for name in names]
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(blank)
    try:
        yield
    finally:
        # Parts of torch that are imported meanwhile add their own.
        added = set(torch.serialization.get_safe_globals()) - set(blank)
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals([*before, *added])


def _unpickled(path: Path) -> Any:
    try:
        with _allowing(_BESIDE):
            # Stated, since an environment variable can reverse the default.
            return torch.load(path, map_location="cpu", weights_only=True)
    # Whatever a damaged file breaks in the reader: KeyError, EOFError, UnicodeDecodeError, RuntimeError, ...
    except Exception as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        if found or isinstance(error, pickle.UnpicklingError):
            other = "something other than tensors and plain values (or is no file of torch.save)"
            what = f"the object {found[1]}" if found else other
            raise FileError(
                f"{path} is refused: it holds {what}, and reading that could run code. Nothing was executed. If you"
                " trust its source, save the state dict alone (torch.save(model.state_dict(), ...)) where it was made."
            ) from None
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise FileError(f"cannot read {path}: it is damaged or not a file of torch.save ({reason}).") from None


def _tensors(path: Path, content: Any, key: str | None) -> dict[str, Tensor]:
    """The one state dict in what a torch file held."""
    if not isinstance(content, dict):
        raise FileError(f"{path} holds a {type(content).__name__}, not a state dict or a mapping with one.")
    if key is not None:
        if not _is_state(content.get(key)):
            raise FileError(f"{path} has no state dict under {key!r}; it holds: {_held(content)}.")
        return dict(content[key])
    if _is_state(content):
        return dict(content)
    found = [name for name in CONTAINERS if _is_state(content.get(name))]
    others = [str(name) for name, value in content.items() if name not in found and _is_state(value)]
    if found:
        # Such as averaged weights, which may be the published ones.
        found += [name for name in others if _shapes(content[name]) == _shapes(content[found[0]])]
    if len(found) > 1:
        raise FileError(f"{path} holds several state dicts ({', '.join(found)}): choose one with --key.")
    if not found:
        hint = f" Weights may be under {', '.join(others)}: choose one with --key." if others else ""
        raise FileError(f"{path} holds no state dict under {', '.join(CONTAINERS)}; it holds: {_held(content)}.{hint}")
    return dict(content[found[0]])


def _is_state(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(name, str) and isinstance(item, Tensor) for name, item in value.items())
    )


def _shapes(state: dict[str, Tensor]) -> list[tuple[int, ...]]:
    """The shapes of a network's matrices and convolutions."""
    return sorted(tuple(value.shape) for value in state.values() if value.dim() > 1)


def _held(content: dict[Any, Any]) -> str:
    return some(list(map(str, content))) or "nothing"
