"""Several weight policies at once, such as adversarial weight perturbation with an average of the weights."""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator
from torch import Tensor, nn

from sglr.config import ConfigError
from sglr.config.fields import WeightPolicy as WeightPolicyOptions
from sglr.weights.registry import REGISTRY, Gradients, WeightOptions, WeightPolicy


class SeveralPolicies(WeightPolicy):
    """All of them, in order. What is evaluated is what the one that gives another model than the live one gives."""

    def __init__(self, policies: Sequence[WeightPolicy]) -> None:
        self._policies = policies

    @contextlib.contextmanager
    def perturbed(self, model: nn.Module, epoch: int, gradients: Gradients) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for policy in self._policies:
                stack.enter_context(policy.perturbed(model, epoch, gradients))
            yield

    def after_step(self, model: nn.Module, epoch: int) -> None:
        for policy in self._policies:
            policy.after_step(model, epoch)

    def after_epoch(self, model: nn.Module, epoch: int, images: Callable[[], Iterable[Tensor]]) -> None:
        for policy in self._policies:
            policy.after_epoch(model, epoch, images)

    def evaluated(self, model: nn.Module) -> nn.Module:
        given = [one for one in (policy.evaluated(model) for policy in self._policies) if one is not model]
        if len(given) > 1:
            raise ConfigError(
                "of several weight policies two give other weights to evaluate, which can be those of one only"
                " (`averages` of their options would have said so before training)"
            )
        return given[0] if given else model

    def state_dict(self) -> dict[str, Any]:
        return {str(place): policy.state_dict() for place, policy in enumerate(self._policies)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for place, policy in enumerate(self._policies):
            policy.load_state_dict(state[str(place)])


@REGISTRY.register("several")
class SeveralOptions(WeightOptions):
    """``of``: the policies, such as ``[awp, {name: ema, decay: 0.995}]``, of which one at most is an average."""

    title: ClassVar[str] = "several at once"
    of: Annotated[tuple[WeightPolicyOptions, ...], Field(min_length=2)]

    @model_validator(mode="after")
    def _they_go_together(self) -> Self:
        if any(len(options.parts()) > 1 for options in self.of):
            raise ValueError("of: 'several' within 'several': name its policies in one list")
        if twice := [name for name, count in Counter(options.name for options in self.of).items() if count > 1]:
            raise ValueError(f"of: {twice[0]!r} is there twice")
        names = [options.name for options in self.of if options.averages]
        if len(names) > 1:
            raise ValueError(
                f"of: {' and '.join(map(repr, names))} do not go together: each gives weights to be evaluated, which"
                " can be those of one only"
            )
        return self

    @property
    def averages(self) -> bool:  # type: ignore[override]
        return any(options.averages for options in self.of)

    def parts(self) -> tuple[WeightOptions, ...]:
        return self.of

    def build(self, model: nn.Module) -> SeveralPolicies:
        return SeveralPolicies([options.build(model) for options in self.of])

    def for_seed(self, seed: int) -> Self:
        return self.model_copy(update={"of": tuple(options.for_seed(seed) for options in self.of)})

    def added_passes(self, own: int, epochs: int) -> tuple[float, float] | None:
        told = [options.added_passes(own, epochs) for options in self.of]
        added = [passes for passes in told if passes is not None]
        if len(added) < len(told):
            return None
        return sum(forward for forward, _ in added), sum(backward for _, backward in added)

    def same_until(self, epoch: int) -> bool:
        return all(options.same_until(epoch) for options in self.of)
