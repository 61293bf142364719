"""Everything one training depends on, gathered from the config."""

import dataclasses
import math
from dataclasses import dataclass
from numbers import Real
from typing import Any, Self

import torch

from sglr import threat
from sglr.config import Config
from sglr.config.fields import BatchNormMode, Compile, Precision
from sglr.config.sections import Augment, Method, Optimizer, Selection, TrainAttack
from sglr.schedules import ScheduleOptions
from sglr.schedules.constant import ConstantOptions
from sglr.training.errors import TrainingError


@dataclass(frozen=True)
class Plan:
    """One training: a method and its settings. Epochs count from 1; ``until`` may end it before ``epochs``."""

    method: Method
    seed: int
    epochs: int
    until: int
    batch_size: int
    optimizer: Optimizer
    schedule: ScheduleOptions
    threat: threat.Threat
    attack: TrainAttack
    attack_bn: BatchNormMode
    selection: Selection
    augment: Augment
    precision: Precision = "fp32"
    compile: Compile = "never"
    keep_epochs: tuple[int, ...] = ()
    stream: str = "train"
    """Prefix of its random streams but the order of examples: equal for everything that must see the same numbers."""

    def learning_rate(self, epoch: int, step: int, steps: int) -> float:
        """The rate of one of an epoch's ``steps``, counted from 0; TrainingError where the schedule gives none."""
        factor = self.schedule.rate(epoch - 1 + step / steps, self.epochs)
        rate = self.optimizer.lr * float(factor) if isinstance(factor, Real) else math.nan
        if not 0 <= rate <= torch.finfo(torch.float32).max:
            raise TrainingError(
                f"train.schedule {self.schedule.name!r} multiplies the learning rate by {factor!r} in epoch {epoch},"
                f" batch {step + 1} of {steps}: the rate must be a number of at least 0 that float32 can hold"
            )
        return rate

    @classmethod
    def training(cls, config: Config, method: Method, seed: int) -> Self:
        """The adversarial training of one method and seed."""
        train = config.train
        return cls(
            method=method.for_seed(seed),
            seed=seed,
            epochs=train.epochs,
            until=train.epochs,
            batch_size=train.batch_size,
            optimizer=train.optimizer,
            schedule=train.schedule,
            threat=threat.of(config.threat),
            attack=train.attack,
            attack_bn=train.attack_bn,
            precision=train.precision,
            compile=train.compile,
            selection=train.selection,
            augment=config.data.augment,
            keep_epochs=train.keep_epochs,
        )

    @classmethod
    def warm_up(cls, config: Config, seed: int) -> Self:
        """The warm-up: natural training at a constant rate, or the first epochs of hard-label adversarial training."""
        plan = cls.training(config, _PLAIN[config.warmup.objective], seed)
        changes: dict[str, Any] = {"until": config.warmup.epochs, "keep_epochs": ()}
        if config.warmup.objective == "standard":
            changes |= {
                "epochs": max(config.warmup.epochs, 1),
                "optimizer": config.train.optimizer.model_copy(update={"lr": config.warmup.lr}),
                "schedule": ConstantOptions(name="constant"),
                "stream": "warmup",
            }
        return dataclasses.replace(plan, **changes)


_PLAIN = {
    "standard": Method.model_validate({"objective": "standard", "labels": "hard", "weights": "none"}),
    "adversarial": Method.model_validate({"objective": "at", "labels": "hard", "weights": "none"}),
}
