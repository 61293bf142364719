"""Names that published code gives to the weights of architectures this project has too, one table per architecture.

A layout says how our names are written elsewhere, so that every key of a file is accounted for, one to one: nothing is
guessed from shapes or order.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """One way of naming the weights of an architecture.

    ``renamed``: (pattern, replacement) pairs that turn our name into theirs, each applied in turn. ``repeated``: (first
    part, other first part) of names that occur a second time in modules which their forward pass never uses.
    """

    title: str
    renamed: tuple[tuple[str, str], ...] = ()
    repeated: tuple[tuple[str, str], ...] = ()

    def theirs(self, ours: str) -> str:
        """Our name as this layout writes it."""
        for pattern, replacement in self.renamed:
            ours = re.sub(pattern, replacement, ours)
        return ours

    def unused(self, ours: Iterable[str]) -> set[str]:
        """Names in this layout whose weights nothing uses."""
        names = [self.theirs(name) for name in ours]
        return {
            other + name.removeprefix(first)
            for first, other in self.repeated
            for name in names
            if name.startswith(first)
        }


OWN = Layout("this project's names")
_LINEAR = Layout("the names of the common CIFAR ResNets", ((r"^head\.", "linear."),))
_FC = Layout("those names with fc for the head", ((r"^head\.", "fc."),))
_DOWNSAMPLE = Layout("torchvision's names", ((r"^head\.", "fc."), (r"\.shortcut\.", ".downsample.")))
_TRADES = Layout(
    "the names of the TRADES code",
    ((r"^head\.", "fc."), (r"^(block\d)\.", r"\1.layer."), (r"\.shortcut\.", ".convShortcut.")),
    # Declared there, trained by weight decay alone, absent from its forward pass.
    repeated=(("block1.", "sub_block1."),),
)
_TRADES_ONCE = Layout("the names of the TRADES code without its unused stage", _TRADES.renamed)

LAYOUTS: dict[str, tuple[Layout, ...]] = {
    "resnet18": (OWN, _LINEAR, _FC, _DOWNSAMPLE),
    "resnet34": (OWN, _LINEAR, _FC, _DOWNSAMPLE),
    "preact_resnet18": (OWN, _LINEAR, _FC),
    "wrn": (OWN, _TRADES, _TRADES_ONCE),
}

# Published forward passes that differ under equal names cannot be told apart by a file: noted for every such model.
CAVEATS = {
    "preact_resnet18": "code whose shortcut sees the input before batch norm and ReLU uses the same names; here it"
    " sees it after them, as in Rice et al. (2020): compare the natural accuracy with the published one",
}

# Scale and shift of the images as buffers, next to the weights or around the whole network: (mean, std).
NORMALIZATIONS = (("normalize.mean", "normalize.std"), ("mu", "sigma"), ("mean", "std"))
# What torch's wrappers put around every name. AveragedModel also counts its updates.
PREFIXES = ("module.", "model.", "_orig_mod.")
COUNTERS = ("n_averaged",)
# Counts batches seen; used in training without momentum only, absent from files written before torch 0.4.1.
BATCH_COUNTER = "num_batches_tracked"


def layouts(name: str) -> tuple[Layout, ...]:
    """Layouts in which weights for the architecture called ``name`` are recognised; our own names come first."""
    return LAYOUTS.get(name, (OWN,))
