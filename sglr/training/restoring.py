"""Whether the policies come back from what is kept of them: where they do not, a resumed training is another one."""

from typing import Any

import torch
from torch import Tensor, nn

from sglr import files
from sglr.labels import LabelPolicy
from sglr.training.errors import TrainingError
from sglr.training.plan import Plan
from sglr.training.state import copied
from sglr.training.step import Learner
from sglr.weights import WeightPolicy

# Examples whose targets are compared at once.
_AT_ONCE = 8192


class Restoration:
    """Looks, at the end of an epoch, at whether the label and the weight policy are restored by their ``state_dict``.

    Each is looked at until it answers otherwise than one that was just built: from then on there is something to
    restore, and it was.
    """

    def __init__(self, learner: Learner, plan: Plan, given: Tensor, classes: int) -> None:
        """TrainingError where the state of a policy could not be kept."""
        for name, policy in (("label", learner.labels), ("weight", learner.weights)):
            try:
                files.require_storable(policy.state_dict())
            except TypeError as error:
                raise TrainingError(
                    f"the state_dict of the {name} policy, {type(policy).__name__}: {error}. It may hold tensors,"
                    " numbers, texts and None, in dicts, lists and tuples"
                ) from error
        self._learner, self._plan, self._given, self._classes = learner, plan, given, classes
        self._proved: set[str] = set()

    @torch.no_grad()
    def require(self, epoch: int) -> None:
        """TrainingError where a policy answers otherwise once it is restored."""
        if "label" not in self._proved and self._labels_differ(epoch):
            self._proved.add("label")
        if "weight" not in self._proved and self._weights_differ():
            self._proved.add("weight")

    def _labels_differ(self, epoch: int) -> bool:
        """Whether the label policy answers otherwise than a new one."""
        policy, method = self._learner.labels, self._plan.method
        fresh = method.labels.build(self._given, self._classes, self._plan.epochs)
        if _agree(policy, fresh, epoch, self._given):
            return False
        _load(fresh, policy)
        if not _agree(policy, fresh, epoch, self._given):
            raise _not_restored("label", policy, "its targets, refined labels, penalties or weights of examples")
        return True

    def _weights_differ(self) -> bool:
        """Whether what the weight policy gives to evaluate is another than a new one gives."""
        policy, model = self._learner.weights, self._learner.model
        if policy.evaluated(model) is model:
            return False
        fresh = self._plan.method.weights.build(model)
        if _equal(policy.evaluated(model), fresh.evaluated(model)):
            return False
        _load(fresh, policy)
        if not _equal(policy.evaluated(model), fresh.evaluated(model)):
            raise _not_restored("weight", policy, "the weights it gives to evaluate")
        return True


def _load(fresh: LabelPolicy | WeightPolicy, policy: LabelPolicy | WeightPolicy) -> None:
    """Restore as a resumed training does."""
    if state := copied(policy.state_dict()):
        fresh.load_state_dict(state)


def _not_restored(kind: str, policy: Any, what: str) -> TrainingError:
    return TrainingError(
        f"the state_dict of the {kind} policy, {type(policy).__name__}, does not restore {what}: a training that is"
        " resumed would be another method. state_dict must hold all that steps change, and load_state_dict put it back"
    )


def _agree(one: LabelPolicy, other: LabelPolicy, epoch: int, given: Tensor) -> bool:
    """Whether two label policies answer the same of all examples, drawing the same random numbers."""
    devices = [given.device] if given.device.type == "cuda" else []
    for index in torch.arange(len(given), device=given.device).split(_AT_ONCE):
        answers = []
        for policy in (one, other):
            with torch.random.fork_rng(devices):
                torch.manual_seed(epoch)
                answers.append(_answers(policy, epoch, index))
        if not all(map(_same, *answers)):
            return False
    return True


def _answers(policy: LabelPolicy, epoch: int, index: Tensor) -> list[Tensor | None]:
    targets = policy.targets(epoch, index)
    penalty = policy.penalty(epoch, index)
    penalised = None if penalty is None else penalty(targets.float())  # any logits
    return [targets, policy.refined(epoch, index), policy.example_weights(epoch, index), penalised]


def _same(one: Tensor | None, other: Tensor | None, within: float = 1e-6) -> bool:
    if one is None or other is None:
        return one is other
    # NaN is another one's error to name.
    return one.shape == other.shape and torch.allclose(one, other, rtol=0, atol=within, equal_nan=True)


def _equal(one: nn.Module, other: nn.Module) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(_same(value, theirs[name], within=0) for name, value in ours.items())
