"""Self-adaptive training (Huang et al. 2020) on TRADES."""

from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from sglr.labels.registry import REGISTRY, LabelOptions, LabelPolicy, NaturalForward, Step, restore
from sglr.objectives import ObjectiveOptions


class SelfAdaptive(LabelPolicy):
    """From ``start_epoch`` on p <- momentum p + (1 - momentum) softmax(f(x)), from the natural train-mode forward only.

    The natural cross-entropy is weighted by max_c p, rescaled to mean 1 over the batch.
    """

    def __init__(self, options: "SelfAdaptiveOptions", given: Tensor, num_classes: int) -> None:
        self._options = options
        self._p = F.one_hot(given, num_classes).float()

    def targets(self, epoch: int, index: Tensor) -> Tensor:
        return self._p[index]

    def update(self, step: Step) -> Tensor:
        if step.epoch < self._options.start_epoch:
            return self._p[step.index]
        momentum = self._options.momentum
        p = momentum * self._p[step.index] + (1 - momentum) * step.natural("train").softmax(1)
        self._p[step.index] = p.to(self._p.dtype)
        return p

    def example_weights(self, epoch: int, index: Tensor) -> Tensor | None:
        if epoch < self._options.start_epoch:
            return None
        confidence = self._p[index].amax(1)
        return confidence / confidence.mean()

    def state_dict(self) -> dict[str, Any]:
        return {"p": self._p}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        restore(self._p, state.get("p"))


@REGISTRY.register("self_adaptive")
class SelfAdaptiveOptions(LabelOptions):
    """Defaults are the paper's, for 100 epochs."""

    title: ClassVar[str] = "self-adaptive training"
    start_epoch: int = Field(default=70, ge=1)
    momentum: float = Field(default=0.9, ge=0, lt=1)

    def build(self, given: Tensor, num_classes: int, epochs: int) -> SelfAdaptive:
        return SelfAdaptive(self, given, num_classes)

    def check_objective(self, objective: ObjectiveOptions) -> None:
        if objective.name != "trades":
            raise ValueError(f"self-adaptive training is defined on objective 'trades', not on {objective.name!r}")

    def natural_forward(self) -> NaturalForward:
        return NaturalForward(self.start_epoch, "train")
