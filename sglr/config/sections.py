"""The sections of params.yaml up to training. Keys are explained in params.yaml; here: types and checks."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from sglr.config.fields import (
    Augmentation,
    BatchNormMode,
    Compile,
    Count,
    Epochs,
    Fraction,
    LabelPolicy,
    Name,
    Objective,
    Padding,
    Positive,
    PositiveFloat,
    Precision,
    Radius,
    Schedule,
    Seed,
    Source,
    Threads,
    WeightPolicy,
    unique,
)  # fmt: skip
from sglr.config.strict import Section


class Experiment(Section):
    """The methods compared, the seeds, and the name."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")]
    methods: Annotated[tuple[Name, ...], Field(min_length=1), AfterValidator(unique)]
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1), AfterValidator(unique)]
    threads: Threads


class Noise(Section):
    """Label noise injected into the training labels (conventions: ``sglr.data.noise``)."""

    kind: Literal["none", "symmetric", "symmetric-other", "asymmetric"]
    rate: Fraction
    seed: Seed
    map: dict[int, int] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.kind == "none") != (self.rate == 0):
            raise ValueError(
                f"kind {self.kind!r} does not fit rate {self.rate}: kind none means rate 0, and rate 0 kind none"
            )
        if self.map is not None and self.kind != "asymmetric":
            raise ValueError("map belongs to kind asymmetric only")
        return self


class Augment(Section):
    """Random crop after zero padding, random horizontal flip, and then ``more``, in order; per example."""

    crop_padding: Padding
    flip: bool
    more: tuple[Augmentation, ...] = ()


class Data(Section):
    """Where images come from and how they are split."""

    source: Source
    train_size: Positive | None
    validation_size: Count
    split_seed: Seed
    noise: Noise
    noise_per_seed: bool
    noisy_validation: bool = False
    augment: Augment

    @property
    def training_examples(self) -> int | None:
        """How many examples are trained on; None where it depends on the data (your own arrays)."""
        if self.train_size is not None:
            return self.train_size
        whole = self.source.training_examples()
        return None if whole is None else whole - self.validation_size

    @model_validator(mode="after")
    def _splits_fit_the_source(self) -> Self:
        whole = self.source.training_examples()
        if whole is not None and self.validation_size + (self.train_size or 1) > whole:
            raise ValueError(
                f"validation_size {self.validation_size} and train_size {self.train_size or 'null, at least one,'} are"
                f" more than the {whole} training examples of the source {self.source.name!r}"
            )
        return self

    @model_validator(mode="after")
    def _asymmetric_noise_has_a_map(self) -> Self:
        if self.noise.kind == "asymmetric" and self.noise.map is None and self.source.asymmetric_map() is None:
            raise ValueError(
                "noise.map: asymmetric noise needs a map from class to class, because the source"
                f" {self.source.name!r} has none"
            )
        return self


class ThreatSettings(Section):
    """The set of allowed perturbations, radius in 255ths."""

    norm: Literal["linf", "l2"]
    eps_255: Radius


class Optimizer(Section):
    """SGD."""

    lr: PositiveFloat
    momentum: Annotated[float, Field(ge=0, lt=1)]
    nesterov: bool
    weight_decay: Annotated[float, Field(ge=0)]

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Self:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov: true needs a momentum above 0")
        return self


class TrainAttack(Section):
    """PGD inside training and analysis: steps, step size in 255ths (None: a quarter of eps), random start."""

    steps: Positive
    step_size_255: PositiveFloat | None
    random_start: bool

    def step_size(self, eps: float) -> float:
        """The length of a step in a ball of radius ``eps``, both in units of pixels in [0, 1]."""
        return eps / 4 if self.step_size_255 is None else self.step_size_255 / 255


class Selection(Section):
    """How the best epoch is chosen on the validation split: PGD of ``steps`` steps, every ``every`` epochs."""

    steps: Positive
    every: Positive


class Train(Section):
    """Adversarial training."""

    epochs: Positive
    batch_size: Positive
    optimizer: Optimizer
    schedule: Schedule
    attack: TrainAttack
    attack_bn: BatchNormMode
    precision: Precision
    compile: Compile
    selection: Selection
    keep_epochs: Epochs

    @model_validator(mode="after")
    def _kept_epochs_exist(self) -> Self:
        late = [epoch for epoch in self.keep_epochs if epoch > self.epochs]
        if late:
            raise ValueError(f"keep_epochs {late} come after the last epoch, {self.epochs}")
        return self

    @model_validator(mode="after")
    def _the_schedule_fits(self) -> Self:
        self.schedule.check_epochs(self.epochs)
        return self


class Warmup(Section):
    """Natural training before, or the shared first epochs of, adversarial training."""

    objective: Literal["standard", "adversarial"]
    epochs: Count
    lr: PositiveFloat


class Method(Section):
    """One row of the study: objective x labels x weights."""

    objective: Objective
    labels: LabelPolicy
    weights: WeightPolicy
    start: Literal["warmup", "initial"] = "warmup"

    @model_validator(mode="after")
    def _fits(self) -> Self:
        self.labels.check_objective(self.objective)
        return self

    def for_seed(self, seed: int) -> Self:
        """The method as a run of this seed has it."""
        parts = {name: getattr(self, name).for_seed(seed) for name in ("objective", "labels", "weights")}
        return self.model_copy(update=parts)
