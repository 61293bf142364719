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
_ACTIVATIONS = (
    "a file does not say which activation function its network has: code with SiLU (Swish) instead of ReLU uses the"
    " same names, and here it is that of the named architecture, of the built-in ones ReLU (the ResNets have an option"
    " `activation`); compare the natural accuracy with the published one"
)
_SHORTCUT = (
    "code whose shortcut sees the input before batch norm and ReLU uses the same names; here it sees it after them, as"
    " in Rice et al. (2020): compare the natural accuracy with the published one"
)

# Scale and shift of the images, as buffers: (mean, std) next to the weights, or in a module before the network.
STATISTICS = (("mean", "std"), ("mu", "sigma"), ("new_mean", "new_std"))
NORMALIZERS = ("normalize.", "normalizer.", "normalization.", "norm.", "0.")
# The attacker of MadryLab's robustness library refers to the network and the normalisation once more.
COPIES = (("attacker.model.", "model."), ("attacker.normalize.", "normalizer."))
# AveragedModel counts its updates.
COUNTERS = ("n_averaged",)
# Counts batches seen; used in training without momentum only, absent from files written before torch 0.4.1.
BATCH_COUNTER = "num_batches_tracked"


def layouts(name: str) -> tuple[Layout, ...]:
    """Layouts in which weights for the architecture called ``name`` are recognised; our own names come first."""
    return LAYOUTS.get(name, (OWN,))


def known_names(name: str, ours: Iterable[str]) -> set[str]:
    """All names that the layouts of the architecture called ``name`` have for its weights, which we call ``ours``."""
    ours = list(ours)
    return {layout.theirs(key) for layout in layouts(name) for key in ours}


def caveats(name: str, layout: Layout) -> list[str]:
    """What equal names leave open about weights read for the architecture called ``name``, a sentence each."""
    return [_ACTIVATIONS, *([_SHORTCUT] if name == "preact_resnet18" and layout != OWN else [])]
