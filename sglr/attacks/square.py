"""Square Attack (Andriushchenko et al. 2020): random search that sees logits but no gradients, by pyautoattack."""

from typing import ClassVar

from pydantic import Field
from torch import Tensor, nn

from sglr.attacks.autoattack import classes_of, run, runner, square_misfit
from sglr.attacks.inputs import outside_inference_mode, require_inputs
from sglr.attacks.mode import warn_in_train_mode
from sglr.attacks.registry import REGISTRY, Attack, AttackOptions
from sglr.threat import Threat


@outside_inference_mode
def square(
    model: nn.Module, x: Tensor, y: Tensor, *, threat: Threat, seed: int = 0, queries: int = 5000, restarts: int = 1
) -> Tensor:
    """Adversarial examples by random square-shaped changes; where none succeeds, x itself.

    x: (N, C, H, W) in [0, 1]; queries: forward passes per example and restart. ValueError for other images, labels
    beyond the model's classes, a single logit, and queries or restarts below 1, ImportError without pyautoattack;
    UserWarning for a model in train mode, as for ``autoattack``.
    """
    if queries < 1 or restarts < 1:
        raise ValueError(f"queries and restarts must be at least 1, found {queries} and {restarts}")
    require_inputs(x, y, threat)
    if len(x):
        warn_in_train_mode(model, "square")
        classes_of(model, x, y)
    attacks = runner(model, x, threat=threat, seed=seed, version="custom", attacks=["square"])
    attacks.square.n_queries, attacks.square.n_restarts = queries, restarts
    return run(attacks, x, y, len(x), threat)


@REGISTRY.register("square")
class SquareOptions(AttackOptions):
    """Square Attack; AutoAttack's standard version has 5000 queries and one restart."""

    packages: ClassVar[tuple[str, ...]] = ("pyautoattack",)

    queries: int = Field(default=5000, ge=1)
    restarts: int = Field(default=1, ge=1)

    def misfit(self, num_classes: int, shape: tuple[int, int, int], norm: str) -> str | None:
        return square_misfit(shape, norm)

    def passes(self, num_classes: int) -> tuple[float, float]:
        return self.restarts * self.queries, 0

    def build(self, threat: Threat) -> Attack:
        def attack(model: nn.Module, x: Tensor, y: Tensor, *, seed: int) -> Tensor:
            return square(model, x, y, threat=threat, seed=seed, queries=self.queries, restarts=self.restarts)

        return attack
