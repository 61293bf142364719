"""What is measured once per epoch."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sglr.attacks import correct_under
from sglr.attacks.accuracy import LogitsError, finite_logits
from sglr.attacks.pgd import PgdOptions
from sglr.data import Split
from sglr.random import derive
from sglr.training.distributed import ALONE, Team
from sglr.training.plan import Plan

_EVALUATION_BATCH = 500
TRACED = 64


def measure(
    plan: Plan,
    model: nn.Module,
    refined: Tensor,
    train: Split,
    validation: Split | None,
    epoch: int,
    predicted_under_attack: Tensor | None,
    team: Team = ALONE,
) -> dict[str, float | None]:
    """Accuracies of an epoch that has just ended, with ``model`` put in eval mode and back.

    ``refined``: the refined labels of all training examples (n, C); ``predicted_under_attack``: the classes (n,) that
    the training steps of this epoch predicted, None without attack. Natural predictions are made now, without
    augmentation; the processes of a team share the work. Keys are history.csv's; None where there is nothing to
    measure. Raises LogitsError where logits are not finite.
    """
    training = model.training
    model.eval()
    try:
        # Converted to floats a batch at a time: the split may be large.
        logits = torch.zeros(refined.shape, device=train.given.device)
        with torch.no_grad():
            team.fill(logits, _EVALUATION_BATCH, lambda number, part: model(train.images(part)).float())
        natural = logits.argmax(1)
        nll = F.cross_entropy(logits.double(), train.given).item()
        if not math.isfinite(nll):
            raise LogitsError("the logits of training images are NaN or infinite")
        row = {"train/natural": _share(natural == train.given), "train/pgd": None, "train/natural_nll": nll}
        row |= {"val/natural": None, "val/pgd": None}
        if validation is not None:
            row |= _validate(plan, model, validation, epoch, team)
    finally:
        model.train(training)
    noisy = train.noisy
    if predicted_under_attack is not None:
        row["train/pgd"] = _share(predicted_under_attack == train.given)
    for key, predicted in (("natural", natural), ("pgd", predicted_under_attack)):
        for group, chosen in (("noisy", noisy), ("clean", ~noisy)):
            for kind, truth in (("given", train.given), ("true", train.true)):
                if group == "clean" and kind == "true":
                    continue
                name = f"{group}/{key}" if group == "clean" else f"{group}/{key}_{kind}"
                row[name] = None if predicted is None else _share((predicted == truth)[chosen])
    return row | describe(refined, train)


def describe(refined: Tensor, train: Split) -> dict[str, float | None]:
    """Mean entropy (nats) of refined labels (n, C), shares of noisy examples recovered and of clean ones corrupted."""
    entropy = torch.special.entr(refined.double()).sum(1).mean().item()
    correct = refined.argmax(1) == train.true
    return {
        "refined/entropy": entropy,
        "refined/recovered": _share(correct[train.noisy]),
        "refined/corrupted": _share(~correct[~train.noisy]),
    }


def _validate(plan: Plan, model: nn.Module, validation: Split, epoch: int, team: Team) -> dict[str, float | None]:
    """Natural and PGD accuracy on the validation split, against its given labels.

    The attack's random start is the same in every epoch.
    """
    x, y, seed = validation.images(), validation.given, derive(plan.seed, "selection")
    size = plan.attack.step_size_255
    # Single-step training takes a step longer than the radius, with which PGD would jump between the ball's faces.
    size = None if size is None or size / 255 > plan.threat.eps / 4 else size
    attack = PgdOptions(name="pgd", steps=plan.selection.steps, step_size_255=size)
    robust = attack.build(plan.threat)

    def natural(number: int, part: Tensor) -> Tensor:
        return (finite_logits(model, x[part], _EVALUATION_BATCH).argmax(1) == y[part]).long()

    def attacked(number: int, part: Tensor) -> Tensor:
        return correct_under(
            model, x[part], y[part], robust, seed=seed + number, batch_size=_EVALUATION_BATCH, threat=plan.threat
        ).long()

    said: list[LogitsError] = []

    def share(of: Callable[[int, Tensor], Tensor]) -> float | None:
        def tried(number: int, part: Tensor) -> Tensor:
            try:
                return of(number, part)
            except LogitsError as error:
                said.append(error)
                return torch.full((len(part),), -1, dtype=y.dtype, device=y.device)

        correct = team.fill(torch.zeros_like(y), _EVALUATION_BATCH, tried)
        if bool((correct < 0).any()):  # in all processes, whoever met it
            raise said[0] if said else LogitsError("the logits of validation images are NaN or infinite")
        return _share(correct)

    row: dict[str, float | None] = {"val/natural": share(natural)}
    if epoch % plan.selection.every == 0 or epoch == plan.epochs:
        row["val/pgd"] = share(attacked)
    return row


def traced_examples(train: Split, generator: torch.Generator) -> Tensor:
    """Positions (at most 64,) of the examples whose refined labels are traced: noisy and clean in equal parts if
    possible."""
    order = torch.randperm(len(train), generator=generator, device="cpu")
    is_noisy = train.noisy.cpu()[order]
    noisy, clean = order[is_noisy], order[~is_noisy]
    half = min(TRACED // 2, len(noisy))
    chosen = torch.cat([noisy[:half], clean[: TRACED - half]])
    return chosen.sort().values


def _share(correct: Tensor) -> float | None:
    """Mean of truths (bool, or 0 and 1), None for an empty tensor."""
    return float(correct.sum()) / len(correct) if len(correct) else None
