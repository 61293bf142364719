"""Whether a state dict is an architecture's, under one of the layouts of its names, and what is in the way."""

import itertools

import torch
from torch import Tensor

from sglr.config.wording import some
from sglr.exchange.foreign_names import BATCH_COUNTER, Layout, layouts

State = dict[str, Tensor]
# Converting these to float32 loses nothing.
_WIDENED = (torch.float16, torch.bfloat16)
# Names that are shown of those that do not fit.
_SHOWN = 4
_SINGLE_LOGIT = (
    " Its last layer gives a single logit: save it with a row of zeros first, weights and bias alike,"
    " torch.cat([torch.zeros_like(w), w]); or wrap the network, torch.cat([torch.zeros_like(z), z], 1) of its logit z"
    " (N, 1) before any sigmoid, for sglr.robustness."
)


def best_layout(name: str, wanted: State, state: State) -> Layout:
    """The layout that leaves fewest keys over on either side."""

    def difference(layout: Layout) -> int:
        theirs = {layout.theirs(key) for key in wanted if not key.endswith(BATCH_COUNTER)}
        found = {key for key in state if not key.endswith(BATCH_COUNTER)}
        return len(found ^ (theirs | {key for key in layout.unused(wanted) if not key.endswith(BATCH_COUNTER)}))

    return min(layouts(name), key=difference)


def misfits(layout: Layout, wanted: State, state: State) -> str:
    """What keeps a state dict from being ``wanted``'s, in its own names, with how many are there; '' when it fits."""
    theirs = {layout.theirs(key): value for key, value in wanted.items()}
    unused = layout.unused(wanted)
    needed = {key for key in theirs.keys() | unused if not key.endswith(BATCH_COUNTER)}
    found = {key: state[key] for key in theirs if key in state}
    groups = {
        "missing": _shown(sorted(needed - state.keys())),
        "unexpected": _shown(sorted(state.keys() - theirs.keys() - unused)),
        "of another shape": some(
            [
                f"{key} is {list(value.shape)}, must be {list(theirs[key].shape)}"
                for key, value in found.items()
                if value.shape != theirs[key].shape
            ],
            _SHOWN,
        ),
        "of another type": some(
            [
                f"{key} is {str(value.dtype).removeprefix('torch.')}, must be {_accepted(theirs[key].dtype)}"
                for key, value in found.items()
                if not _is_accepted(key, value.dtype, theirs[key].dtype)
            ],
            _SHOWN,
        ),
    }
    if not any(groups.values()):
        groups["not finite"] = some([key for key, value in found.items() if not torch.isfinite(value).all()], _SHOWN)
    said = "; ".join(f"{title}: {names}" for title, names in groups.items() if names)
    hint = _SINGLE_LOGIT if _has_single_logit(theirs, found) else ""
    return said and f"{len(needed & state.keys())} of its {len(needed)} names are there; {said}.{hint}"


def _has_single_logit(wanted: State, found: State) -> bool:
    """Whether a network has one output where two classes are wanted, and fits otherwise."""
    pairs = [(wanted[key].shape, value.shape) for key, value in found.items()]
    differing = [(ours, theirs) for ours, theirs in pairs if ours != theirs]
    return bool(differing) and all(ours[:1] == (2,) and theirs == (1, *ours[1:]) for ours, theirs in differing)


def _shown(names: list[str]) -> str:
    """The first of them, how many more there are, and the modules that all of them are in."""
    modules = zip(*(name.split(".") for name in names), strict=False)
    common = [level[0] for level in itertools.takewhile(lambda level: len(set(level)) == 1, modules)]
    inside = f" (all begin with {'.'.join(common)}.)" if common and len(names) > 1 else ""
    return some(names, _SHOWN) + inside


def _accepted(wanted: torch.dtype) -> str:
    return "float32, float16 or bfloat16" if wanted == torch.float32 else str(wanted).removeprefix("torch.")


def _is_accepted(key: str, found: torch.dtype, wanted: torch.dtype) -> bool:
    # A batch counter is not used, and half() makes floats of it, too.
    counted = key.endswith(BATCH_COUNTER) and found.is_floating_point
    return found == wanted or counted or (wanted == torch.float32 and found in _WIDENED)


def fitted(layout: Layout, wanted: State, state: State) -> tuple[State, list[str]]:
    """A state dict that fits, under our names, and what was done for it."""
    weights = {key: state.get(layout.theirs(key), torch.zeros((), dtype=torch.int64)) for key in wanted}
    changes = []
    widened = [key for key, value in weights.items() if value.dtype in _WIDENED and wanted[key].is_floating_point()]
    if widened:
        changes.append(f"{len(widened)} tensors widened from {weights[widened[0]].dtype} to float32")
    absent = [key for key in wanted if layout.theirs(key) not in state]
    if absent:
        changes.append(f"{len(absent)} batch counters absent (not used in evaluation)")
    unused = layout.unused(wanted)
    if unused:
        changes.append(f"{len(unused)} tensors of modules that the published forward pass does not use were left out")
    return weights, changes
