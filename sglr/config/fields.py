"""Types of single values of params.yaml, and of the components that rooms register."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from sglr.config.registry import in_room


def unique(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """The values, none of which may be repeated."""
    repeated = sorted({value for value in values if values.count(value) > 1})
    if repeated:
        raise ValueError(f"duplicate values: {repeated}")
    return values


Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]{0,39}$")]
Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
# Far above what a machine has, and low enough that torch starts none in vain.
Threads = Annotated[int, Field(ge=1, le=1024)]
# Wider padding leaves most crops empty, and the padded copies of a batch would fill the memory.
Padding = Annotated[int, Field(ge=0, le=64)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Fraction = Annotated[float, Field(ge=0, le=1)]
PositiveFloat = Annotated[float, Field(gt=0)]
# Far beyond any distance of two images, and low enough that its square is a number.
Radius = Annotated[float, Field(gt=0, le=1e6)]
BatchNormMode = Literal["eval", "train"]
Precision = Literal["fp32", "tf32", "bf16"]
Compile = Literal["auto", "always", "never"]
Epochs = Annotated[tuple[Positive, ...], AfterValidator(unique)]

# Components: the options type of the named one, found in its room's registry (sglr.config.registry).
ROOMS = {
    "source": "sglr.data", "more": "sglr.augmentations", "model": "sglr.models", "schedule": "sglr.schedules",
    "attacks": "sglr.attacks", "objective": "sglr.objectives", "labels": "sglr.labels", "weights": "sglr.weights",
}  # fmt: skip
Source = Annotated[Any, in_room(ROOMS["source"])]
Augmentation = Annotated[Any, in_room(ROOMS["more"])]
Model = Annotated[Any, in_room(ROOMS["model"])]
Schedule = Annotated[Any, in_room(ROOMS["schedule"])]
Attack = Annotated[Any, in_room(ROOMS["attacks"])]
Objective = Annotated[Any, in_room(ROOMS["objective"])]
LabelPolicy = Annotated[Any, in_room(ROOMS["labels"])]
WeightPolicy = Annotated[Any, in_room(ROOMS["weights"])]
