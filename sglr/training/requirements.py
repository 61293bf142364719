"""What data, model and processes must be for a plan, checked before the first step."""

import copy

import torch
from torch import nn

from sglr.data import Split
from sglr.training.attacking import require_attack
from sglr.training.augmenting import require_augmentations
from sglr.training.distributed import Team
from sglr.training.errors import TrainingError
from sglr.training.plan import Plan


def require_trainable(plan: Plan, model: nn.Module, train: Split, team: Team) -> None:
    """TrainingError for a batch that is larger than the data, smaller than the team, or one image where the model has
    batch norm; for an augmentation that does not fit the images; for one, or an attack of the objective's own, that is
    found wrong on two of them."""
    if plan.batch_size > len(train):
        raise TrainingError(
            f"train.batch_size {plan.batch_size} is larger than the training set ({len(train)} examples)"
        )
    smallest = len(train) % plan.batch_size or plan.batch_size
    if smallest < team.size:
        raise TrainingError(
            f"{team.size} processes cannot share a batch of {smallest}, the last of an epoch of {len(train)} examples:"
            " change train.batch_size, data.train_size or SGLR_NPROC"
        )
    if smallest == 1:
        _require_trainable_on_one(model, train)
    require_augmentations(plan, train)
    require_attack(plan, model, train)


@torch.no_grad()
def _require_trainable_on_one(model: nn.Module, train: Split) -> None:
    try:
        copy.deepcopy(model).train()(train.images(slice(0, 1)))
    except ValueError as error:  # torch's, where a channel has a single value
        raise TrainingError(
            f"the last batch of an epoch of {len(train)} examples is one image, too few for batch norm: change"
            " train.batch_size or data.train_size"
        ) from error
