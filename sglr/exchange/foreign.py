"""A model of this project with weights from elsewhere, exactly or not at all."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sglr.config import ConfigError
from sglr.exchange.foreign_file import read_tensors
from sglr.exchange.foreign_names import BATCH_COUNTER, CAVEATS, COUNTERS, NORMALIZATIONS, OWN, PREFIXES, Layout, layouts
from sglr.files import FileError
from sglr.models.checkpoint import some
from sglr.models.factory import build, spec
from sglr.models.registry import Classifier, Shape

_SINGLE_LOGIT = (
    " Its last layer gives a single logit: save it with a row of zeros first, weights and bias alike,"
    " torch.cat([torch.zeros_like(w), w]); or wrap the network, torch.cat([torch.zeros_like(z), z], 1) of its logit z"
    " (N, 1) before any sigmoid, for sglr.robustness."
)
# Converting these to float32 loses nothing.
_WIDENED = (torch.float16, torch.bfloat16)


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
    and std per channel when the file does not hold them. Prefixes of wrappers are removed when every name has them.

    Raises FileError naming the keys that are missing, left over, of another shape or type, or not finite; ConfigError
    for an unknown architecture, options that do not fit it, or a normalisation that contradicts the file's.
    """
    state, notes = _without_wrappers(read_tensors(path, key))
    if key is not None:
        notes.insert(0, f"read under the key {key!r}")
    state, stored = _without_normalization(state, shape[0])
    if stored is not None:
        if normalization is not None and not _agree(stored, normalization):
            raise ConfigError(f"{path} holds the normalisation {stored}, which is not the one given, {normalization}.")
        notes.append(f"normalisation read from the file: {stored}")
        normalization = stored
    described = spec(name, num_classes=num_classes, shape=shape, normalization=normalization, **options)
    model = build(name, num_classes=num_classes, shape=shape, generator_seed=0, normalization=normalization, **options)
    wanted = {key: value for key, value in model.state_dict().items() if not key.startswith("normalize.")}
    layout = _best_layout(name, wanted, state)
    notes.append(f"keys read as {layout.title}")
    problems = _problems(layout, wanted, state)
    if problems:
        used = ", ".join(f"{key}={value}" for key, value in described["options"].items() if key != "normalization")
        raise FileError(
            f"{path} does not fit {name} with {num_classes} classes for images {list(shape)}, read as {layout.title}:"
            f" {problems}."
            + (f" Its options here: {used} (to change with --option)." if used else "")
            + (_SINGLE_LOGIT if _has_single_logit(layout, wanted, state) else "")
        )
    fitted = {key: state.get(layout.theirs(key), torch.zeros((), dtype=torch.int64)) for key in wanted}
    widened = [key for key, value in fitted.items() if value.dtype in _WIDENED and wanted[key].is_floating_point()]
    if widened:
        notes.append(f"{len(widened)} tensors widened from {fitted[widened[0]].dtype} to float32")
    absent = [key for key in wanted if layout.theirs(key) not in state]
    if absent:
        notes.append(f"{len(absent)} batch counters absent (not used in evaluation)")
    unused = layout.unused(wanted)
    if unused:
        notes.append(f"{len(unused)} tensors of modules that the published forward pass does not use were left out")
    if name in CAVEATS and layout != OWN:
        notes.append(CAVEATS[name])
    model.load_state_dict(model.state_dict() | fitted)
    return Foreign(model.eval(), described, tuple(notes))


def _without_wrappers(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Prefixes off, as long as every name has one; a normalisation around the network may be next to ``model.``."""
    removed = []
    while True:
        rest = {key: value for key, value in state.items() if key not in COUNTERS}
        beside = {key for pair in NORMALIZATIONS for key in pair if set(pair) <= set(rest)}
        inner = set(rest) - beside
        prefix = next((p for p in PREFIXES if inner and all(key.startswith(p) for key in inner)), None)
        if prefix is None:
            break
        state = {key.removeprefix(prefix) if key in inner else key: value for key, value in rest.items()}
        removed.append(prefix)
    return state, [f"prefix {''.join(removed)} taken off every key"] if removed else []


def _without_normalization(
    state: dict[str, Tensor], channels: int
) -> tuple[dict[str, Tensor], dict[str, list[float]] | None]:
    for mean, std in NORMALIZATIONS:
        if mean in state and std in state and state[mean].numel() == state[std].numel() == channels:
            values = {"mean": state[mean].flatten().tolist(), "std": state[std].flatten().tolist()}
            return {key: value for key, value in state.items() if key not in (mean, std)}, values
    return state, None


def _agree(stored: dict[str, Any], given: dict[str, Any]) -> bool:
    one, other = (torch.tensor([list(values["mean"]), list(values["std"])]) for values in (stored, given))
    return one.shape == other.shape and torch.allclose(one, other, rtol=0, atol=1e-6)


def _accepted(wanted: torch.dtype) -> str:
    return "float32, float16 or bfloat16" if wanted == torch.float32 else str(wanted).removeprefix("torch.")


def _best_layout(name: str, wanted: dict[str, Tensor], state: dict[str, Tensor]) -> Layout:
    """The layout that leaves fewest keys over on either side."""

    def difference(layout: Layout) -> int:
        theirs = {layout.theirs(key) for key in wanted if not key.endswith(BATCH_COUNTER)}
        found = {key for key in state if not key.endswith(BATCH_COUNTER)}
        return len(found ^ (theirs | {key for key in layout.unused(wanted) if not key.endswith(BATCH_COUNTER)}))

    return min(layouts(name), key=difference)


def _has_single_logit(layout: Layout, wanted: dict[str, Tensor], state: dict[str, Tensor]) -> bool:
    """Whether the file's network has one output where two classes are wanted, and fits otherwise."""
    pairs = [
        (value.shape, state[layout.theirs(key)].shape) for key, value in wanted.items() if layout.theirs(key) in state
    ]
    differing = [(ours, theirs) for ours, theirs in pairs if ours != theirs]
    return bool(differing) and all(ours[:1] == (2,) and theirs == (1, *ours[1:]) for ours, theirs in differing)


def _problems(layout: Layout, wanted: dict[str, Tensor], state: dict[str, Tensor]) -> str:
    """The mismatches, in the file's names; '' when everything fits."""
    theirs = {layout.theirs(key): value for key, value in wanted.items()}
    unused = layout.unused(wanted)
    counters_optional = {key for key in theirs if key.endswith(BATCH_COUNTER)}
    found = {key: state[key] for key in theirs if key in state}
    groups = {
        "missing": sorted(
            (set(theirs) | {u for u in unused if not u.endswith(BATCH_COUNTER)}) - set(state) - counters_optional
        ),
        "unexpected": sorted(set(state) - set(theirs) - unused),
        "of another shape": [
            f"{key} is {list(value.shape)}, must be {list(theirs[key].shape)}"
            for key, value in found.items()
            if value.shape != theirs[key].shape
        ],
    }
    groups["of another type"] = [
        f"{key} is {str(value.dtype).removeprefix('torch.')}, must be {_accepted(theirs[key].dtype)}"
        for key, value in found.items()
        # A counter is not used, and half() makes floats of it, too.
        if not (
            value.dtype == theirs[key].dtype
            or (theirs[key].dtype == torch.float32 and value.dtype in _WIDENED)
            or (key in counters_optional and value.is_floating_point())
        )
    ]
    if not any(groups.values()):
        groups["not finite"] = [key for key, value in found.items() if not bool(torch.isfinite(value).all())]
    return "; ".join(f"{title}: {some(keys)}" for title, keys in groups.items() if keys)
