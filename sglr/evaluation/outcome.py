"""The outcome of an attack on a number of examples, and the worst of several outcomes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from sglr.attacks import losses


@dataclass(frozen=True)
class Outcome:
    """The outcome on n examples.

    correct: (n,) bool. warnings: those of the attack. images: (k, C, H, W) float32 in [0, 1], what the first k
    of the examples became. margin: (k,) float32, how far above the label's logit the largest other one is there.
    """

    correct: np.ndarray
    warnings: tuple[str, ...]
    images: np.ndarray
    margin: np.ndarray

    @classmethod
    def of(
        cls, correct: Tensor, warnings: Sequence[str], images: Tensor, logits: Tensor, y: Tensor, k: int
    ) -> "Outcome":
        """From logits (n, classes) of images (n, C, H, W) with labels y (n,), of which the first k are kept."""
        # A copy: a view, even of none, would hold the memory of them all.
        kept = images[:k].detach().cpu().numpy().copy()
        return cls(correct.cpu().numpy(), tuple(warnings), kept, losses.margin(logits[:k], y[:k]).cpu().numpy())

    def first(self, n: int, keep: int | None = None) -> "Outcome":
        """The outcome of the first n examples, with the images of the first ``keep`` (None: n) of them."""
        keep = n if keep is None else keep
        return Outcome(self.correct[:n], self.warnings, self.images[:keep], self.margin[:keep])

    def warned(self, warnings: Sequence[str]) -> "Outcome":
        """The same with further warnings."""
        return Outcome(self.correct, _once(self.warnings, warnings), self.images, self.margin)

    def worse(self, other: "Outcome", index: np.ndarray | None = None) -> "Outcome":
        """The worst of both, example by example; ``other`` was found on the examples ``index`` (None: on the first).

        Of two kept images it is the misclassified one, then the one of larger margin. ``index`` must be sorted, and
        ``other`` keep the images of those that are kept here.
        """
        index = np.arange(len(other.correct)) if index is None else index
        correct, images, margin = self.correct.copy(), self.images.copy(), self.margin.copy()
        correct[index] &= other.correct
        k = len(other.images)
        where = index[:k]
        wrong, known = ~other.correct[:k], ~self.correct[where]
        taken = np.where(wrong == known, other.margin > margin[where], wrong)
        images[where[taken]], margin[where[taken]] = other.images[taken], other.margin[taken]
        return Outcome(correct, _once(self.warnings, other.warnings), images, margin)


def joined(parts: Sequence[Outcome]) -> Outcome:
    """The outcomes of consecutive examples as one; at least one."""
    return Outcome(
        np.concatenate([part.correct for part in parts]),
        _once(*(part.warnings for part in parts)),
        np.concatenate([part.images for part in parts]),
        np.concatenate([part.margin for part in parts]),
    )


def _once(*said: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(sentence for sentences in said for sentence in sentences))
