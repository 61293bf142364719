"""A model of this project with weights from elsewhere, exactly or not at all."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sglr.config import ConfigError
from sglr.exchange.foreign_file import read_tensors
from sglr.exchange.foreign_fit import best_layout, fitted, misfits
from sglr.exchange.foreign_names import caveats, known_names
from sglr.exchange.foreign_wrappers import Network, unwrapped
from sglr.files import FileError
from sglr.models.factory import from_spec, spec
from sglr.models.registry import Classifier, Shape


class MisfitError(FileError):
    """Weights that are another network's."""


@dataclass(frozen=True)
class Foreign:
    """``model``: in eval mode on the CPU; ``spec``: as model.json holds it; ``notes``: what was done to the weights."""

    model: Classifier
    spec: dict[str, Any]
    notes: tuple[str, ...]


def load_foreign(
    path: str | Path,
    name: str,
    *,
    num_classes: int,
    shape: Shape,
    key: str | None = None,
    normalization: dict[str, Any] | None = None,
    **options: Any,
) -> Foreign:
    """The architecture ``name`` with ``options`` and the weights in a file, whose names may be those of published code.

    shape: (C, H, W) of an image; key: where in the file the state dict is (see ``read_tensors``); normalization: mean
    and std per channel when the file does not hold them. What all names begin with is removed, whatever it is called,
    and so is an equal copy of the network that attacks it.

    Raises MisfitError naming the keys that are missing, left over, of another shape or type, or not finite; FileError
    for a file from which something before the network, such as its normalisation, is missing while none is given;
    ConfigError for an unknown architecture, options that do not fit it, or a normalisation that contradicts the file's.
    """
    path, kind = Path(path), {"num_classes": num_classes, "shape": shape, **options}
    blank = from_spec(spec(name, normalization=normalization, **kind), device="meta", generator_seed=0)
    wanted = {key: value for key, value in blank.state_dict().items() if not key.startswith("normalize.")}
    network = unwrapped(path, read_tensors(path, key), known_names(name, wanted), shape[0])
    chosen = _normalization(path, network, normalization)
    try:
        described = spec(name, normalization=chosen, **kind)
    except ConfigError as error:  # of a normalisation that is given, `blank` has said so
        raise FileError(f"{path}: the normalisation in the file, {chosen}, cannot be used: {error}") from None
    layout = best_layout(name, wanted, network.state)
    problems = misfits(layout, wanted, network.state)
    if problems:
        prefix = f" without the prefix {network.prefix}" if network.prefix else ""
        raise MisfitError(f"{path} does not fit {_asked(described)}, read as {layout.title}{prefix}: {problems}")
    _refuse_hidden(path, network, normalization)
    weights, changes = fitted(layout, wanted, network.state)
    model = from_spec(described, generator_seed=0)
    model.load_state_dict(model.state_dict() | weights)
    read = [f"read under the key {key!r}"] if key is not None else []
    notes = (*read, *network.notes(), f"keys read as {layout.title}", *changes, *caveats(name, layout))
    return Foreign(model.eval(), described, notes)


def _asked(described: dict[str, Any]) -> str:
    """The architecture that weights were to fit, in words."""
    used = ", ".join(f"{key}={value}" for key, value in described["options"].items() if key != "normalization")
    asked = f"{described['name']} with {described['num_classes']} classes for images {described['shape']}"
    return asked + (f" ({used}; to change with --option)" if used else "")


def _normalization(path: Path, network: Network, given: dict[str, Any] | None) -> dict[str, Any] | None:
    """The one in the file, else the one given; ConfigError where they differ."""
    stored = network.normalization
    if stored is not None and given is not None and not _agree(stored, given):
        raise ConfigError(f"{path} holds the normalisation {stored}, which is not the one given, {given}.")
    return stored if given is None else given


def _refuse_hidden(path: Path, network: Network, given: dict[str, Any] | None) -> None:
    """FileError for a network that something stood before which is neither in the file nor given."""
    if not network.hidden or (given is not None and network.normalization is None):
        return
    lacking = f"{path} lacks a part of its network: all names begin with {network.prefix}, so that another module stood"
    if network.normalization is not None:
        raise FileError(
            f"{lacking} before it beside the normalisation, of which the file has nothing. If the network is the same"
            " without it, save its own state dict where it was made."
        )
    raise FileError(
        f"{lacking} before it, most probably a normalisation whose values were not saved. Find them in the code that it"
        " was trained with, and give them with --normalization MEAN/STD (zeros and ones where there was none)."
    )


def _agree(stored: dict[str, Any], given: dict[str, Any]) -> bool:
    """Up to rounding, in a file of half precision to that."""
    one, other = (torch.tensor([list(values["mean"]), list(values["std"])]) for values in (stored, given))
    rounded = (other, other.half().float(), other.bfloat16().float())
    return one.shape == other.shape and any(torch.allclose(one, each, rtol=0, atol=1e-6) for each in rounded)
