"""The given labels as they are."""

from typing import ClassVar

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from sglr.labels.registry import REGISTRY, LabelOptions, LabelPolicy, NaturalForward, Step
from sglr.objectives import ObjectiveOptions


class FixedLabels(LabelPolicy):
    """Targets (n, C) that never change."""

    def __init__(self, targets: Tensor) -> None:
        self._targets = targets

    def targets(self, epoch: int, index: Tensor) -> Tensor:
        return self._targets[index]


class ControlLabels(FixedLabels):
    """Hard labels with the natural forward that refinement makes, from an epoch on: its effect on batch norm alone."""

    def __init__(self, targets: Tensor, start_epoch: int) -> None:
        super().__init__(targets)
        self._start_epoch = start_epoch

    def update(self, step: Step) -> Tensor:
        if step.epoch >= self._start_epoch:
            step.natural("train")
        return super().update(step)


@REGISTRY.register("hard")
class HardOptions(LabelOptions):
    """``natural_forward_from``: an epoch from which refinement's train-mode natural forward is made all the same."""

    title: ClassVar[str] = "the given labels"
    natural_forward_from: int | None = Field(default=None, ge=1)

    def build(self, given: Tensor, num_classes: int, epochs: int) -> FixedLabels:
        onehot = F.one_hot(given, num_classes).float()
        if self.natural_forward_from is None:
            return FixedLabels(onehot)
        return ControlLabels(onehot, self.natural_forward_from)

    def check_objective(self, objective: ObjectiveOptions) -> None:
        if self.natural_forward_from is not None and objective.build().forwards_natural:
            raise ValueError(
                f"natural_forward_from adds nothing to objective {objective.name!r}, which forwards natural images"
                " itself"
            )

    def natural_forward(self) -> NaturalForward:
        return NaturalForward(self.natural_forward_from, "train")

    def same_until(self, epoch: int) -> bool:
        return self.natural_forward_from is None or self.natural_forward_from > epoch
