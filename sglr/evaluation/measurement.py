"""One attack on one model, in fixed chunks of examples in data set order.

A chunk's outcome depends on its examples, the attack and the seed + its number, and on no other chunk: it may be
computed in any process, in any order, or be read from the finished pieces. An example that is already misclassified is
not attacked, unless its image is kept, to be shown to other models; pyautoattack's attacks leave it as it is even then.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sglr.attacks import Attack, AttackOptions
from sglr.attacks.accuracy import finite_logits, require_allowed
from sglr.attacks.autoattack import captured_warnings, warn_of_square
from sglr.data import Images
from sglr.evaluation.outcome import Outcome, joined
from sglr.evaluation.pieces import NOWHERE, Pieces
from sglr.random import derive, seeded
from sglr.threat import Threat


@dataclass(frozen=True)
class Measurement:
    """An attack (None: the images as they are) on examples x (N, C, H, W) in [0, 1] with labels y (N,).

    chunk: examples per chunk; keep: of how many, the first ones, the adversarial images are kept. before: what was
    measured on the same model and the same chunks or more: the attack continues from there, and its outcome is that of
    both together; None: it starts from the natural predictions.
    """

    model: nn.Module
    x: Tensor | Images
    y: Tensor
    options: AttackOptions | None
    threat: Threat
    seed: int
    chunk: int
    pieces: Pieces = NOWHERE
    keep: int = 0
    before: "Measurement | None" = None
    _known: dict[int, Outcome] = field(default_factory=dict, init=False, repr=False)

    @property
    def chunks(self) -> int:
        """How many chunks there are."""
        return -(-len(self.x) // self.chunk)

    def whole(self, on_chunk: Callable[[], object] = lambda: None) -> Outcome:
        """The outcome on all examples; errors as in ``part``."""
        parts = []
        for number in range(self.chunks):
            parts.append(self.part(number))
            on_chunk()
        return joined(parts)

    def part(self, number: int) -> Outcome:
        """The outcome of one chunk.

        Raises RuntimeError if the attack returned NaN or something outside [0, 1] or the ball, LogitsError where logits
        are not finite.
        """
        if number not in self._known:
            part = slice(number * self.chunk, (number + 1) * self.chunk)
            self._known[number] = self._measured(number, self.x[part], self.y[part])
        return self._known[number]

    def _measured(self, number: int, x: Tensor, y: Tensor) -> Outcome:
        """Each member of the attack on the examples that are still correct, the first on those that are kept, too.

        Each is a piece that is kept.
        """
        keep = min(max(self.keep - number * self.chunk, 0), len(x))
        natural = self._drawing(number, "natural", self._scored, x, y, keep)
        if self.options is None:
            return self.pieces.once(f"{number:06d}", len(x), natural)
        found = natural() if self.before is None else self.before.part(number).first(len(x), keep)
        shares = {"clean": float(found.correct.mean())}
        chosen = found.correct | (np.arange(len(x)) < keep)
        for member, attack in self.options.members(self.threat).items():
            attacked = np.flatnonzero(chosen)
            if len(attacked) == 0:
                break
            index, kept = torch.from_numpy(attacked).to(x.device), int((attacked < keep).sum())
            examples = (x[index], y[index])
            work = self._drawing(number, member, self._attacked, *examples, attack, self.seed + number, kept)
            found = found.worse(self.pieces.once(f"{number:06d}-{member}", len(attacked), work), attacked)
            chosen, shares[member] = found.correct, float(found.correct.mean())
        with captured_warnings() as warnings:
            warn_of_square(shares)
        return found.warned(warnings)

    def _drawing(
        self, number: int, purpose: str, work: Callable[..., Outcome], *arguments: Any
    ) -> Callable[[], Outcome]:
        """A piece of work in which a model that draws random numbers draws the same whichever pieces came before."""
        return seeded(derive(self.seed + number, purpose), self.y.device)(partial(work, *arguments))

    def _attacked(self, x: Tensor, y: Tensor, attack: Attack, seed: int, keep: int) -> Outcome:
        with captured_warnings() as warnings:
            # A copy: an attack that works in place would move what its distance is measured from.
            x_adv = attack(self.model, x.clone(), y, seed=seed)
        require_allowed(x_adv, x, self.threat)
        return self._scored(x_adv, y, keep).warned(warnings)

    def _scored(self, x: Tensor, y: Tensor, keep: int) -> Outcome:
        logits = finite_logits(self.model, x, len(x))
        return Outcome.of(logits.argmax(1) == y, (), x, logits, y, keep)
