"""The sections of params.yaml on what is measured: evaluation, analysis, report."""

from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, model_validator

from sglr.config.fields import Attack, Compile, Name, Positive, PositiveFloat, Radius, Seed, unique
from sglr.config.names import WORST
from sglr.config.sections import TrainAttack
from sglr.config.strict import Section


class Sweep(Section):
    """Accuracy as a curve over the radius."""

    eps_255: Annotated[tuple[Radius, ...], Field(min_length=1), AfterValidator(unique)]
    steps: Positive


class Sanity(Section):
    """Signs of masked gradients, on a few examples."""

    n_examples: Positive
    steps: Annotated[int, Field(ge=4)]


class Evaluate(Section):
    """Robustness evaluation on the test split."""

    n_examples: Positive | None
    batch_size: Positive
    compile: Compile
    seed: Seed
    attacks: dict[Name, Attack]
    sweep: Sweep | None
    sanity: Sanity | None

    @model_validator(mode="after")
    def _names_free(self) -> Self:
        reserved = {
            "natural": "is always measured",
            WORST: "is the worst case over the attacks",
            "validation": "is what the report calls the accuracies on the validation split",
        }
        for taken, what in reserved.items():
            if taken in self.attacks:
                raise ValueError(f"{taken!r} {what} and cannot name an attack")
        return self

    def examples(self, there: int, own: Any = None) -> int:
        """How many of so many test examples are used: by an attack or the sanity checks, else by the whole suite."""
        return min(n for n in (there, self.n_examples, None if own is None else own.n_examples) if n is not None)


class Probe(Section):
    """Cross-fitted linear probe on the penultimate features."""

    folds: Annotated[int, Field(ge=2)]
    l2: PositiveFloat


class Gradients(Section):
    """Gradients of all weights, example by example: how many examples, and how many at once."""

    n_examples: Positive
    chunk: Positive


def _odd(points: int) -> int:
    if points % 2 == 0:
        raise ValueError(f"{points} is even; it must be odd, so that the middle point is the model itself")
    return points


class Sharpness(Section):
    """Curvature of the loss, and the loss along a random direction."""

    n_examples: Positive
    iterations: Annotated[int, Field(ge=2)]
    radius: PositiveFloat
    points: Annotated[int, Field(ge=3), AfterValidator(_odd)]


class Analyze(Section):
    """Information-theoretic analysis."""

    n_examples: Positive | None
    batch_size: Positive
    seed: Seed
    attack: TrainAttack
    ece_bins: Positive
    probe: Probe
    index_noise: Annotated[tuple[PositiveFloat, ...], Field(min_length=1), AfterValidator(unique)]
    gradients: Gradients
    sharpness: Sharpness | None


class Report(Section):
    """The main comparison of the report."""

    baseline: Name
    bootstrap: Annotated[int, Field(ge=100)]
    seed: Seed
