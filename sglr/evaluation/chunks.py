"""One attack on one model, in fixed chunks of examples in data set order.

A chunk's outcome depends on its examples, the attack and the seed + its number, and on no other chunk: it may be
computed in any process, in any order, or be read from the journal.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from sglr.attacks import Attack, AttackOptions, correct_under
from sglr.attacks.accuracy import finite_predictions
from sglr.attacks.autoattack import captured_warnings, warn_of_square
from sglr.evaluation.journal import Journal, Outcome
from sglr.threat import Threat


def outcomes(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    options: AttackOptions | None,
    *,
    threat: Threat,
    seed: int,
    chunk: int,
    journal: Journal | None = None,
    on_chunk: Callable[[], object] = lambda: None,
) -> Outcome:
    """Correct predictions (N,) under an attack (None: as they are), and what the attack warned of.

    x: (N, C, H, W) in [0, 1]; y: (N,); chunk: examples per chunk. RuntimeError and LogitsError as in
    ``correct_under``.
    """
    journal = journal or Journal(None)
    found: list[np.ndarray] = []
    said: list[str] = []
    for number, (part, labels) in enumerate(zip(x.split(chunk), y.split(chunk), strict=True)):
        with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
            # A model that draws random numbers draws the same ones whichever chunks came before.
            torch.manual_seed(seed + number)
            correct, warnings = _chunk(model, part, labels, options, threat, seed + number, journal, f"{number:06d}")
        found.append(correct)
        said += [warning for warning in warnings if warning not in said]
        on_chunk()
    return np.concatenate(found), said


def _chunk(
    model: nn.Module, x: Tensor, y: Tensor, options: AttackOptions | None, threat: Threat, seed: int, journal: Journal,
    piece: str,
) -> Outcome:  # fmt: skip
    if options is None:
        return journal.once(piece, len(x), lambda: ((finite_predictions(model, x, len(x)) == y).cpu().numpy(), []))
    members = options.members(threat)
    if not members:
        return journal.once(piece, len(x), partial(_attacked, model, x, y, options.build(threat), threat, seed))
    return _members(model, x, y, members, threat, seed, journal, piece)


def _attacked(model: nn.Module, x: Tensor, y: Tensor, attack: Attack, threat: Threat, seed: int) -> Outcome:
    with captured_warnings() as warnings:
        correct = correct_under(model, x, y, attack, seed=seed, batch_size=len(x), threat=threat)
    return correct.cpu().numpy(), warnings


def _members(
    model: nn.Module, x: Tensor, y: Tensor, members: dict[str, Attack], threat: Threat, seed: int, journal: Journal,
    piece: str,
) -> Outcome:  # fmt: skip
    """Each member on the examples that those before it left correct; each is a piece of the journal."""
    correct = (finite_predictions(model, x, len(x)) == y).cpu().numpy()
    shares, said = {"clean": float(correct.mean())}, []
    for member, attack in members.items():
        still = np.flatnonzero(correct)
        if len(still) == 0:
            break
        index = torch.from_numpy(still).to(x.device)
        found, warnings = journal.once(
            f"{piece}-{member}", len(still), partial(_attacked, model, x[index], y[index], attack, threat, seed)
        )
        correct[still] = found
        shares[member] = float(correct.mean())
        said += [warning for warning in warnings if warning not in said]
    with captured_warnings() as warnings:
        warn_of_square(shares)
    return correct, said + warnings
