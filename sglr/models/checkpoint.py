"""Trained models as files: ``model.safetensors`` (weights, plain names) and ``model.json`` (how to build the model).

Nothing is unpickled, and nothing is allocated for weights before names, shapes and types are known to fit.
"""

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from sglr import files
from sglr.config.names import CHECKPOINTS, SPEC, WEIGHTS
from sglr.config.wording import some
from sglr.models.compiling import WRAPPERS
from sglr.models.factory import from_spec
from sglr.models.registry import Classifier
from sglr.models.requirements import DTYPES

_WRAPPERS = (DataParallel, DistributedDataParallel, AveragedModel, *WRAPPERS)


def save(model: nn.Module, folder: str | Path, spec: dict[str, Any]) -> None:
    """Write ``model`` into ``folder`` (made when absent) as model.safetensors and model.json, each atomically.

    ``spec`` is what ``sglr.models.spec`` returns. Wrappers (torch.compile, DistributedDataParallel, AveragedModel) are
    removed. Raises ValueError when the weights are not those of the model that ``spec`` describes.
    """
    from safetensors.torch import save as serialize

    weights = {name: value.detach().cpu().contiguous() for name, value in unwrap(model).state_dict().items()}
    problems = _misfits(_described(_blank(spec)), _described(weights))
    if problems:
        raise ValueError(f"the weights are not those of the model {spec['name']!r} to be saved: {problems}")
    files.write_bytes(Path(folder) / WEIGHTS, serialize(weights))
    files.write_json(Path(folder) / SPEC, spec)


def remove(folder: Path) -> None:
    """Remove a saved model from a folder, and the folder too if nothing else is in it."""
    for name in (WEIGHTS, SPEC):
        (folder / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


def saved_as(path: str | Path) -> tuple[Path, Path]:
    """The files of a saved model, weights and description: those in a folder, or a .safetensors file and its .json."""
    path = Path(path)
    return (path / WEIGHTS, path / SPEC) if path.is_dir() else (path, path.with_suffix(".json"))


def saved_in(folder: str | Path, names: Iterable[str] = CHECKPOINTS) -> list[Path]:
    """Those of the folders of these names within ``folder`` that hold weights, in the names' order: best first."""
    folders = [Path(folder, name) for name in names]
    return [one for one in folders if (one / WEIGHTS).is_file()]


def load_model(path: str | Path) -> Classifier:
    """The model saved in a folder, or in a .safetensors file with its .json next to it, in eval mode on the CPU.

    It takes images in [0, 1] (N, C, H, W) and returns logits. Raises FileError, naming the file and the keys, when a
    file is missing or damaged or the weights do not fit the model.
    """
    weights_path, spec_path = saved_as(path)
    if not weights_path.is_file():
        inside = " or ".join(map(str, saved_in(path)))
        raise files.FileError(f"there is no model at {weights_path}{f': name {inside}' if inside else ''}.")
    if weights_path.suffix != ".safetensors":
        raise files.FileError(
            f"{weights_path} is no safetensors file: models are saved as {WEIGHTS} and {SPEC}. `sglr evaluate --model`"
            " and sglr.exchange.load_foreign read what others saved."
        )
    spec = files.read_json(spec_path)
    try:
        model = from_spec(spec, device="meta")
    except (ValueError, TypeError) as error:
        raise files.FileError(f"{spec_path} does not describe a model that can be built: {error}") from None
    problems = _misfits(_described(model.state_dict()), _header(weights_path))
    if problems:
        raise files.FileError(f"{weights_path} does not fit the model {spec['name']!r} of {spec_path.name}: {problems}")
    # Every parameter and buffer is in the file (``build`` sees to that), so nothing uninitialised remains.
    model = model.to_empty(device="cpu")
    model.load_state_dict(_weights(weights_path))
    return model.eval()


def put(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Give a model, such as ``build``'s, weights and buffers of the same names, shapes and types.

    Raises ValueError with what does not fit; the model is then as it was.
    """
    problems = _misfits(_described(model.state_dict()), _described(weights))
    if problems:
        raise ValueError(problems)
    model.load_state_dict(weights)


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside torch.compile (also ``compiled``'s), DistributedDataParallel, DataParallel, AveragedModel."""
    while True:
        inner = model.module if isinstance(model, _WRAPPERS) else getattr(model, "_orig_mod", None)
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def _blank(spec: dict[str, Any]) -> dict[str, Tensor]:
    return from_spec(spec, device="meta").state_dict()


def _described(state: dict[str, Tensor]) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {name: (str(value.dtype).removeprefix("torch."), tuple(value.shape)) for name, value in state.items()}


def _header(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Type and shape of each tensor in a safetensors file whose header fits its length; FileError otherwise."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as opened:
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118 (not a mapping)
            return {name: (_dtype(part.get_dtype()), tuple(part.get_shape())) for name, part in slices.items()}
    # RuntimeError: a file larger than what can be mapped.
    except (OSError, SafetensorError, RuntimeError) as error:
        raise _damaged(path, error) from None


def _weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, in memory of their own (not mapped onto a file that may be replaced)."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> files.FileError:
    return files.FileError(f"cannot read {path}: it is damaged or not a safetensors file ({error}).")


def _dtype(code: str) -> str:
    return str(DTYPES.get(code, code)).removeprefix("torch.")


def _misfits(wanted: dict[str, tuple[str, tuple[int, ...]]], found: dict[str, tuple[str, tuple[int, ...]]]) -> str:
    """The problems of the found weights, in words; '' when they fit."""
    wrong = [
        f"{name} is {found[name][0]} {list(found[name][1])}, must be {wanted[name][0]} {list(wanted[name][1])}"
        for name in wanted
        if name in found and wanted[name] != found[name]
    ]
    groups = {
        "missing": [name for name in wanted if name not in found],
        "unexpected": [name for name in found if name not in wanted],
        "of another form": wrong,
    }
    return "; ".join(f"{title}: {some(names)}" for title, names in groups.items() if names)
