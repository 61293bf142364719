"""Whether the policies come back from what is kept of them: where they do not, a resumed training is another one."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sglr import files
from sglr.labels import LabelPolicy
from sglr.random import seed_torch
from sglr.training.errors import TrainingError
from sglr.training.learner import Learner, label_policy, weight_policy
from sglr.training.plan import Plan
from sglr.training.state import copied
from sglr.weights import WeightPolicy

# Examples whose targets are compared at once.
_AT_ONCE = 65_536
_ANSWERS = ("targets", "refined labels", "attack targets", "weights of examples", "penalty")


class Restoration:
    """Looks, after an epoch, at whether the label and the weight policy are restored by their ``state_dict``.

    New ones are given the state, asked the same questions as copies of those at work, and have to answer the same. The
    training itself stays as it was: nothing is asked of its own policies, and its random numbers go on.
    """

    def __init__(self, learner: Learner, plan: Plan, given: Tensor, classes: int) -> None:
        self._learner, self._plan, self._given, self._classes = learner, plan, given, classes

    def require_storable(self) -> None:
        """TrainingError where the state of a policy could not be kept."""
        for kind, policy in (("label", self._learner.labels), ("weight", self._learner.weights)):
            try:
                files.require_storable(policy.state_dict())
            except TypeError as error:
                raise TrainingError(
                    f"the state_dict of the {kind} policy, {type(policy).__name__}: {error}. It may hold tensors,"
                    " numbers, texts and None, in dicts, lists and tuples"
                ) from error

    @torch.no_grad()
    def require(self, epoch: int) -> None:
        """TrainingError where a policy answers otherwise once it is restored."""
        self.require_storable()
        with torch.random.fork_rng([self._given.device] if self._given.is_cuda else []):
            self._require_labels(epoch)
            self._require_weights(epoch)

    def _require_labels(self, epoch: int) -> None:
        policy = _copy(self._learner.labels)
        if policy is None:
            return
        fresh = label_policy(self._plan, self._given, self._classes)
        _load(fresh, policy)
        for index in torch.arange(len(self._given), device=self._given.device).split(_AT_ONCE):
            now_and_restored = []
            for one in (policy, fresh):
                seed_torch(epoch, self._given.device)  # what is drawn is drawn twice
                now_and_restored.append(_answers(one, epoch, index))
            for name, now, restored in zip(_ANSWERS, *now_and_restored, strict=True):
                if not _same(now, restored):
                    raise _not_restored("label", policy, name)

    def _require_weights(self, epoch: int) -> None:
        if type(self._learner.weights).evaluated is WeightPolicy.evaluated:
            return  # the model itself
        pair = _copy((self._learner.weights, self._learner.model))
        if pair is None:
            return
        policy, model = pair
        fresh = weight_policy(self._plan, copy.deepcopy(model))
        _load(fresh, policy)
        seed_torch(epoch, self._given.device)
        now = policy.evaluated(model).state_dict()
        seed_torch(epoch, self._given.device)
        restored = fresh.evaluated(model).state_dict()
        if now.keys() != restored.keys() or not all(_same(now[name], restored[name], within=0) for name in now):
            raise _not_restored("weight", policy, "weights to evaluate")


def _answers(policy: LabelPolicy, epoch: int, index: Tensor) -> list[Tensor | None]:
    """What a policy says of these examples, as in ``_ANSWERS``; None where it says nothing of each of them."""
    n, targets = len(index), policy.targets(epoch, index)

    def penalised() -> Tensor | None:
        penalty = policy.penalty(epoch, index)
        return None if penalty is None else penalty(targets.float())  # any logits

    attack_targets = _of_each(lambda: policy.attack_targets(epoch, index), n)
    weights = _of_each(lambda: policy.example_weights(epoch, index), n)
    return [targets, policy.refined(epoch, index), attack_targets, weights, _of_each(penalised, n)]


def _of_each(ask: Callable[[], Tensor | None], n: int) -> Tensor | None:
    """The answer, one number for each of n examples; None for any other: it is about the batch of a step."""
    try:
        found = ask()
    except Exception:  # whatever a policy does that was shown no batch before
        return None
    return found if isinstance(found, Tensor) and found.shape[:1] == (n,) else None


def _copy(policies: Any) -> Any:
    """A deep copy; None where there can be none, and nothing is looked at."""
    try:
        return copy.deepcopy(policies)
    except Exception:  # whatever they hold
        return None


def _load(fresh: LabelPolicy | WeightPolicy, policy: LabelPolicy | WeightPolicy) -> None:
    """Restore as a resumed training does."""
    if state := copied(policy.state_dict()):
        fresh.load_state_dict(state)


def _not_restored(kind: str, policy: Any, what: str) -> TrainingError:
    return TrainingError(
        f"the state_dict of the {kind} policy, {type(policy).__name__}, does not restore its {what}: a training that"
        " is resumed would be another method. state_dict must hold all that steps change, and load_state_dict put it"
        " back"
    )


def _same(one: Tensor | None, other: Tensor | None, within: float = 1e-6) -> bool:
    if one is None or other is None:
        return one is other
    # NaN is another one's error to name.
    return one.shape == other.shape and torch.allclose(
        one.double(), other.double(), rtol=0, atol=within, equal_nan=True
    )
