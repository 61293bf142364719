"""The interface of an attack: options with a ``build`` method that returns a function."""

from typing import ClassVar, Protocol

from pydantic import Field
from torch import Tensor, nn

from sglr.config import Options, Registry
from sglr.threat import Threat

REGISTRY = Registry("attack")


class Attack(Protocol):
    """An attack ready to run."""

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, seed: int) -> Tensor:
        """Adversarial examples for x (N, C, H, W) in [0, 1] with labels y (N,); equal for equal seeds."""
        ...


class AttackOptions(Options):
    """Base of attack options: how many test examples it is run on (null: as many as the suite)."""

    packages: ClassVar[tuple[str, ...]] = ()
    """Packages it needs beyond those of training; names as pip takes them."""

    n_examples: int | None = Field(default=None, ge=1)

    def misfit(self, num_classes: int, shape: tuple[int, int, int], norm: str) -> str | None:
        """Why it cannot attack models of ``num_classes`` and images (C, H, W) under this norm; None where it can."""
        return None

    def passes(self, num_classes: int) -> tuple[float, float] | None:
        """Forward and backward passes for an example that the attack never breaks; None where it does not say."""
        return None

    def build(self, threat: Threat) -> Attack:
        """The attack for a threat model."""
        raise NotImplementedError

    def members(self, threat: Threat) -> dict[str, Attack]:
        """The attacks it is made of, by name, in order: each is to be run on what the ones before left correct."""
        return {"attack": self.build(threat)}
