"""One attack on one model, in fixed chunks of examples in data set order.

A chunk's outcome depends on its examples, the attack and the seed + its number, and on no other chunk: it may be
computed in any process, in any order, or be read from the journal.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from sglr.attacks import Attack, AttackOptions
from sglr.attacks.accuracy import finite_logits, require_allowed
from sglr.attacks.autoattack import captured_warnings, warn_of_square
from sglr.data import Pictures
from sglr.evaluation.journal import NOWHERE, Journal
from sglr.evaluation.outcome import Outcome, joined
from sglr.threat import Threat


@dataclass(frozen=True)
class Measurement:
    """An attack (None: the pictures as they are) on examples x (N, C, H, W) in [0, 1] with labels y (N,).

    chunk: examples per chunk; keep: of how many, the first ones, the adversarial pictures are kept.
    """

    model: nn.Module
    x: Tensor | Pictures
    y: Tensor
    options: AttackOptions | None
    threat: Threat
    seed: int
    chunk: int
    journal: Journal = NOWHERE
    keep: int = 0

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
        part = slice(number * self.chunk, (number + 1) * self.chunk)
        x, y = self.x[part], self.y[part]
        keep = min(max(self.keep - number * self.chunk, 0), len(x))
        with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
            # A model that draws random numbers draws the same ones whichever chunks came before.
            torch.manual_seed(self.seed + number)
            return self._part(x, y, self.seed + number, keep, f"{number:06d}")

    def _part(self, x: Tensor, y: Tensor, seed: int, keep: int, piece: str) -> Outcome:
        if self.options is None:
            return self.journal.once(piece, len(x), lambda: self._natural(x, y, keep))
        members = self.options.members(self.threat)
        if not members:
            attack = self.options.build(self.threat)
            return self.journal.once(piece, len(x), partial(self._attacked, x, y, attack, seed, keep))
        return self._members(x, y, members, seed, keep, piece)

    def _natural(self, x: Tensor, y: Tensor, keep: int) -> Outcome:
        logits = finite_logits(self.model, x, len(x))
        return Outcome.of(logits.argmax(1) == y, (), x, logits, y, keep)

    def _attacked(self, x: Tensor, y: Tensor, attack: Attack, seed: int, keep: int) -> Outcome:
        with captured_warnings() as warnings:
            x_adv = attack(self.model, x, y, seed=seed)
        require_allowed(x_adv, x, self.threat)
        natural, logits = finite_logits(self.model, x, len(x)), finite_logits(self.model, x_adv, len(x))
        correct = (natural.argmax(1) == y) & (logits.argmax(1) == y)
        return Outcome.of(correct, warnings, x_adv, logits, y, keep)

    def _members(self, x: Tensor, y: Tensor, members: dict[str, Attack], seed: int, keep: int, piece: str) -> Outcome:
        """Each member on the examples that those before it left correct; each is a piece of the journal."""
        found = self._natural(x, y, keep)
        shares = {"clean": float(found.correct.mean())}
        for member, attack in members.items():
            still = np.flatnonzero(found.correct)
            if len(still) == 0:
                break
            index, kept = torch.from_numpy(still).to(x.device), int((still < keep).sum())
            work = partial(self._attacked, x[index], y[index], attack, seed, kept)
            found = found.worse(self.journal.once(f"{piece}-{member}", len(still), work), still)
            shares[member] = float(found.correct.mean())
        with captured_warnings() as warnings:
            warn_of_square(shares)
        return found.warned(warnings)
