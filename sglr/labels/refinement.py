"""Self-guided label refinement (arXiv 2403.09101); formulas and sources: docs/methods.md."""

import warnings
from numbers import Real
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional as F

from sglr.config.fields import BatchNormMode
from sglr.labels.registry import REGISTRY, LabelOptions, LabelPolicy, NaturalForward, Step, restore
from sglr.objectives import ObjectiveOptions

# By how much sums of probabilities in half precision may differ from 1.
_ROUNDED = 0.02


class SelfGuidedRefinement:
    """A probability vector per training example, averaged with the model's own predictions.

    For use in any training loop::

        labels = SelfGuidedRefinement(given, 10, alpha=0.9, adversarial_weight=0.8, refinement_ratio=1.0)
        targets = labels.update(index, logits_adv.detach().softmax(1), logits.softmax(1))

    given_labels: int64 (n,) in [0, num_classes); state lives on their device. ``alpha`` is the share of the old vector
    in an update, ``adversarial_weight`` (lambda) that of the adversarial prediction in the new one, and
    ``refinement_ratio`` (r) that of the refined label in the target. r < 1 is a reconstruction of the paper's
    y = r f(x') + (1 - r) y_hard; the authors' published code has r = 1. ``hard_targets`` puts the refined label's most
    probable class in its place, one-hot: a control of ours, which corrects labels and softens none.

    What is given to ``update`` and ``targets`` is validated: rows must be probabilities, indices unique in an update.
    ``validate=False`` skips this, since it waits for the GPU.

    Raises ValueError for values outside [0, 1], for alpha = 1, which never refines, and for r = 0, which never uses
    what was refined. Warns of alpha = 0 with lambda = 1: the refined label is then the prediction on x' itself.
    """

    def __init__(
        self,
        given_labels: Tensor,
        num_classes: int,
        *,
        alpha: float = 0.9,
        adversarial_weight: float = 0.8,
        refinement_ratio: float = 1.0,
        hard_targets: bool = False,
        validate: bool = True,
    ) -> None:
        settings = {"alpha": alpha, "adversarial_weight": adversarial_weight, "refinement_ratio": refinement_ratio}
        for name, value in settings.items():
            _require_share(name, value)
        if alpha == 1:
            raise ValueError("alpha 1 never updates the labels: that is training without refinement")
        if refinement_ratio == 0:
            raise ValueError("refinement_ratio 0 never uses the refined labels: that is training without refinement")
        if alpha == 0 and adversarial_weight == 1 and not hard_targets:
            warnings.warn(
                "alpha 0 with adversarial_weight 1 makes the refined label the adversarial prediction itself: the"
                " gradient of a cross-entropy on the adversarial images is then the plain one times 1 - r",
                stacklevel=2,
            )
        if not isinstance(given_labels, Tensor) or given_labels.dim() != 1 or given_labels.dtype != torch.int64:
            raise ValueError(f"given_labels must be a torch tensor, int64 (n,), found {_form(given_labels)}")
        if not hasattr(num_classes, "__index__"):
            raise ValueError(f"num_classes must be a whole number, found {num_classes!r}")
        if len(given_labels) and not (int(given_labels.min()) >= 0 and int(given_labels.max()) < num_classes):
            raise ValueError(f"given_labels must lie in [0, {num_classes}), num_classes being {num_classes}")
        self.alpha = alpha
        self.adversarial_weight = adversarial_weight
        self.refinement_ratio = refinement_ratio
        self.hard_targets = hard_targets
        self._validate = validate
        with torch.inference_mode(False):  # the table is written in other modes, too
            self._given = given_labels.clone()
            self._p = F.one_hot(self._given, int(num_classes)).float()

    @torch.no_grad()
    def update(
        self, index: Tensor, adversarial_probs: Tensor, natural_probs: Tensor, ratio: float | None = None
    ) -> Tensor:
        """Average new predictions into the batch's vectors and return its targets (N, C), detached.

        index: int64 (N,), each example at most once; probabilities: (N, C). ``ratio`` overrides r for this batch.
        Raises ValueError for anything else, logits for example.
        """
        if self._validate:
            self._check(index, adversarial_probs, natural_probs, ratio)
        # Never below single precision, whatever the forward ran in.
        precision = torch.promote_types(adversarial_probs.dtype, self._p.dtype)
        adversarial, natural = adversarial_probs.to(precision), natural_probs.to(precision)
        q = self.adversarial_weight * adversarial + (1 - self.adversarial_weight) * natural
        p = self.alpha * self._p[index].to(precision) + (1 - self.alpha) * q
        self._p[index] = p.to(self._p.dtype)
        return self._mix(p, index, ratio)

    def _check(self, index: Tensor, adversarial: Tensor, natural: Tensor, ratio: float | None) -> None:
        self._check_asked(index, ratio)
        if index.unique().numel() != index.numel():
            raise ValueError("index must hold each example once, since each is updated once")
        shape = (len(index), self._p.shape[1])
        for name, probs in (("adversarial_probs", adversarial), ("natural_probs", natural)):
            if not isinstance(probs, Tensor) or probs.shape != shape:
                raise ValueError(f"{name} must be a torch tensor {shape}, found {_form(probs)}")
            if not bool((probs >= 0).all()) or not bool(((probs.float().sum(1) - 1).abs() < _ROUNDED).all()):
                raise ValueError(f"{name} are no probabilities, which sum to 1: did you forget softmax(1)?")

    def _check_asked(self, index: Tensor, ratio: float | None) -> None:
        if not isinstance(index, Tensor) or index.dim() != 1 or index.dtype != torch.int64:
            raise ValueError(f"index must be a torch tensor, int64 (N,), found {_form(index)}")
        if not bool(((index >= 0) & (index < len(self._given))).all()):
            raise ValueError(f"index must hold positions from 0 to {len(self._given) - 1}")
        if ratio is not None:
            _require_share("ratio", ratio)

    def targets(self, index: Tensor, ratio: float | None = None) -> Tensor:
        """The batch's current targets (N, C); nothing is updated. ``ratio`` and errors as for ``update``."""
        if self._validate:
            self._check_asked(index, ratio)
        return self._mix(self._p[index], index, ratio)

    def refined(self, index: Tensor) -> Tensor:
        """The batch's refined labels p (N, C), as they stand: targets of r = 1 unless these are hard."""
        return self._p[index]

    def _mix(self, p: Tensor, index: Tensor, ratio: float | None) -> Tensor:
        ratio = self.refinement_ratio if ratio is None else ratio
        refined = F.one_hot(p.argmax(1), p.shape[1]).to(p.dtype) if self.hard_targets else p
        if ratio == 1:
            return refined
        return ratio * refined + (1 - ratio) * F.one_hot(self._given[index], p.shape[1]).to(p.dtype)

    def state_dict(self) -> dict[str, Any]:
        """The table p (n, C)."""
        return {"p": self._p}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the table; ValueError when its shape is another."""
        restore(self._p, state.get("p"))


def _require_share(name: str, value: Any) -> None:
    if not (isinstance(value, Real) and 0 <= float(value) <= 1):
        raise ValueError(f"{name} must be a number in [0, 1], found {value!r}")


def _form(given: Any) -> str:
    return f"{given.dtype} {tuple(given.shape)}" if isinstance(given, Tensor) else type(given).__name__


class RefinementPolicy(LabelPolicy):
    """Hard labels before ``start_epoch``, self-guided refinement from it on."""

    def __init__(self, options: "RefinementOptions", given: Tensor, num_classes: int, epochs: int) -> None:
        self._options = options
        self._epochs = epochs
        self._refined = SelfGuidedRefinement(
            given,
            num_classes,
            alpha=options.alpha,
            adversarial_weight=options.adversarial_weight,
            refinement_ratio=options.refinement_ratio,
            hard_targets=options.hard_targets,
            validate=False,
        )

    def targets(self, epoch: int, index: Tensor) -> Tensor:
        return self._refined.targets(index, self._ratio(epoch))

    def refined(self, epoch: int, index: Tensor) -> Tensor:
        return self._refined.refined(index)

    def update(self, step: Step) -> Tensor:
        if step.epoch < self._options.start_epoch:
            return self.targets(step.epoch, step.index)
        assert step.outputs.adversarial is not None
        # After the adversarial forward: the order matters to batch norm's running statistics.
        natural = step.natural(self._options.natural_bn)
        adversarial, natural = step.outputs.adversarial.softmax(1), natural.softmax(1)
        return self._refined.update(step.index, adversarial, natural, self._ratio(step.epoch))

    def _ratio(self, epoch: int) -> float:
        """r of an epoch: 0 before the start; then constant, or rising linearly from r / k in the first of k refining
        epochs to r in the last."""
        options = self._options
        if epoch < options.start_epoch:
            return 0.0
        if options.ratio_schedule == "constant":
            return options.refinement_ratio
        refining = self._epochs - options.start_epoch + 1
        return options.refinement_ratio * (epoch - options.start_epoch + 1) / refining

    def state_dict(self) -> dict[str, Any]:
        return self._refined.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._refined.load_state_dict(state)


@REGISTRY.register("refinement")
class RefinementOptions(LabelOptions):
    """Defaults are those of the authors' published code; docs/methods.md has the sources. ``start_epoch`` has none,
    since it goes with the number of epochs: 90 of 200 there."""

    title: ClassVar[str] = "self-guided label refinement"
    start_epoch: int = Field(ge=1)
    alpha: float = Field(default=0.9, ge=0, le=1)
    adversarial_weight: float = Field(default=0.8, ge=0, le=1)
    refinement_ratio: float = Field(default=1.0, ge=0, le=1)
    ratio_schedule: Literal["constant", "linear"] = "constant"
    hard_targets: bool = False
    natural_bn: BatchNormMode = "train"

    @model_validator(mode="after")
    def _refines(self) -> Self:
        if self.alpha == 1:
            raise ValueError("alpha 1 never updates the labels: that is plain 'at' (labels: hard)")
        if self.refinement_ratio == 0:
            raise ValueError("refinement_ratio 0 never uses the refined labels: that is plain 'at' (labels: hard)")
        return self

    def build(self, given: Tensor, num_classes: int, epochs: int) -> RefinementPolicy:
        return RefinementPolicy(self, given, num_classes, epochs)

    def check_objective(self, objective: ObjectiveOptions) -> None:
        built = objective.build()
        # A target equal to the prediction it is compared with leaves (1 - r) of the plain gradient.
        own = {"adversarial": 1.0, "natural": 0.0, None: None}[built.targets_meet]
        if self.alpha == 0 and self.adversarial_weight == own and not self.hard_targets:
            raise ValueError(
                f"adversarial_weight {own:g} with alpha 0 makes the target the prediction itself: the gradient of the"
                f" cross-entropy in {objective.name!r} is then the plain one times 1 - refinement_ratio"
            )
        if not built.attacks:
            raise ValueError(f"refinement needs adversarial predictions; objective {objective.name!r} makes none")
        if built.forwards_natural and self.natural_bn == "eval":
            raise ValueError(
                f"natural_bn eval does not go with objective {objective.name!r}, which forwards natural images in"
                " train mode itself: refinement uses that prediction"
            )

    def natural_forward(self) -> NaturalForward:
        return NaturalForward(self.start_epoch, self.natural_bn)

    def same_until(self, epoch: int) -> bool:
        return self.start_epoch > epoch
