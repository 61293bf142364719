"""What published code puts around a network, taken off the names of its weights: wrappers, copies, normalisation."""

from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sglr.exchange.foreign_names import COPIES, COUNTERS, NORMALIZERS, STATISTICS
from sglr.files import FileError

State = dict[str, Tensor]
# Wrappers around wrappers; a name that was made to have millions would take as many looks.
_DEEPEST = 20


@dataclass(frozen=True)
class Network:
    """What is left of a state dict without its wrappers.

    ``state``: the network's own weights; ``prefix``: what stood before each of their names; ``normalization``: mean and
    std per channel, where the file has them; ``hidden``: modules without weights, such as a normalisation whose values
    were not saved, stood before the network; ``copied``: tensors that were in the file twice.
    """

    state: State
    prefix: str = ""
    normalization: dict[str, list[float]] | None = None
    hidden: bool = False
    copied: int = 0

    def notes(self) -> list[str]:
        """What was done to the names, a sentence each."""
        found = [f"prefix {self.prefix} taken off every key"] if self.prefix else []
        if self.copied:
            found.append(f"{self.copied} tensors of a second copy of the network were left out: they are equal")
        if self.normalization is not None:
            found.append(f"normalisation read from the file: {self.normalization}")
        if self.hidden:
            found.append(
                "a module of which the file has nothing stood before the network: the given normalisation counts as it"
            )
        return found


def unwrapped(path: Path, state: State, known: Set[str], channels: int) -> Network:
    """The network inside a state dict: while all names begin alike and none is a ``known`` one, the beginning goes.

    A normalisation may be beside the network at any depth, or inside it. Raises FileError, which names the file
    ``path``, for a copy of the network that is not equal to it.
    """
    prefix, normalization, hidden, copied = "", None, False, 0
    while True:
        state, copies = _without_copies(path, {key: state[key] for key in state if key not in COUNTERS})
        copied += copies
        before = 0
        if normalization is None and (beside := _statistics(state, state.keys() - known, channels)):
            mean, std = (state.pop(key) for key in beside)
            normalization = {"mean": mean.flatten().tolist(), "std": std.flatten().tolist()}
            before = int("." in beside[0])
        outer = _common(state)
        if not outer or known & state.keys() or prefix.count(".") == _DEEPEST:
            return Network(state, prefix, normalization, hidden, copied)
        # A module's number in a Sequential is how many there are before it.
        hidden = hidden or (outer.isdecimal() and outer not in ("0", str(before)))
        state = {key.removeprefix(f"{outer}."): value for key, value in state.items()}
        prefix += f"{outer}."


def _common(state: State) -> str:
    """The module that all names begin with; '' where there is none."""
    outer = {key.partition(".")[0] if "." in key else "" for key in state}
    return outer.pop() if len(outer) == 1 else ""


def _statistics(state: State, names: Set[str], channels: int) -> tuple[str, str] | None:
    """The ``names`` that are those of a normalisation's mean and std."""
    for module in ("", *NORMALIZERS):
        for mean, std in ((module + mean, module + std) for mean, std in STATISTICS):
            if {mean, std} <= names and state[mean].numel() == state[std].numel() == channels:
                return mean, std
    return None


def _without_copies(path: Path, state: State) -> tuple[State, int]:
    """The state dict without names of what it holds under another name, and how many these were."""
    twice = {
        key: first + key.removeprefix(copy)
        for copy, first in COPIES
        for key in state
        if key.startswith(copy) and first + key.removeprefix(copy) in state
    }
    for key, first in twice.items():
        one, other = state[key], state[first]
        if one.dtype != other.dtype or not torch.equal(one, other):
            raise FileError(
                f"{path} holds two networks: {key} is not equal to {first}. Save the one that is meant alone."
            )
    return {key: value for key, value in state.items() if key not in twice}, len(twice)
