"""The interface of a weight policy."""

from typing import Any, Protocol

from torch import nn

from sglr.config import Options, Registry

REGISTRY = Registry("weight policy")


class WeightPolicy(Protocol):
    """Hooks of the training loop."""

    def after_step(self, model: nn.Module, epoch: int) -> None:
        """Called after each optimiser step."""
        ...

    def evaluated(self, model: nn.Module) -> nn.Module:
        """The model that is validated, selected and saved: the live one or an average of it."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore ``state_dict``."""
        ...


class WeightOptions(Options):
    """Base of weight policy options."""

    def build(self, model: nn.Module) -> WeightPolicy:
        """The policy for a model."""
        raise NotImplementedError

    def same_until(self, epoch: int) -> bool:
        """Whether the epochs up to ``epoch`` are trained as without the policy, so that a warm-up can be shared."""
        return False
