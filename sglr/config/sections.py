"""The sections of params.yaml. What the keys mean stands beside them in params.yaml; these are types and checks."""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Discriminator, Field, Strict, model_validator

from sglr.config.errors import suggest
from sglr.config.registry import Section, in_room


def _unique(values: tuple[Any, ...]) -> tuple[Any, ...]:
    repeated = sorted({value for value in values if values.count(value) > 1})
    if repeated:
        raise ValueError(f"each value may stand there once, given more than once: {repeated}")
    return values


Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]{0,39}$")]
Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Fraction = Annotated[float, Field(ge=0, le=1)]
PositiveFloat = Annotated[float, Field(gt=0)]
# YAML has lists only; frozen types want tuples.
Epochs = Annotated[tuple[Positive, ...], Strict(False), AfterValidator(_unique)]
Floats = Annotated[tuple[float, ...], Strict(False), Field(min_length=1)]

# Components: the options type of the named one, found in its room's registry (sglr.config.registry).
ROOMS = {
    key: f"sglr.{room}"
    for key, room in {
        "source": "data",
        "model": "models",
        "attacks": "attacks",
        "objective": "objectives",
        "labels": "labels",
        "weights": "weights",
    }.items()
}
Source = Annotated[Any, in_room(ROOMS["source"])]
Model = Annotated[Any, in_room(ROOMS["model"])]
Attack = Annotated[Any, in_room(ROOMS["attacks"])]
Objective = Annotated[Any, in_room(ROOMS["objective"])]
LabelPolicy = Annotated[Any, in_room(ROOMS["labels"])]
WeightPolicy = Annotated[Any, in_room(ROOMS["weights"])]


class Experiment(Section):
    """What is compared, how often, under which name."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")]
    methods: Annotated[tuple[Name, ...], Strict(False), Field(min_length=1), AfterValidator(_unique)]
    seeds: Annotated[tuple[Seed, ...], Strict(False), Field(min_length=1), AfterValidator(_unique)]
    threads: Positive


class Noise(Section):
    """Label noise injected into the training labels (METHOD: conventions in ``sglr.data.noise``)."""

    kind: Literal["none", "symmetric", "symmetric-other", "asymmetric"]
    rate: Fraction
    seed: Seed
    map: dict[int, int] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.kind == "none") != (self.rate == 0):
            raise ValueError(
                f"kind {self.kind!r} does not go with rate {self.rate}: kind none means rate 0, and rate 0 kind none"
            )
        if self.map is not None and self.kind != "asymmetric":
            raise ValueError("map belongs to kind asymmetric only")
        return self


class Augment(Section):
    """Random crop after zero padding, and random horizontal flip, per example."""

    crop_padding: Count
    flip: bool


class Data(Section):
    """Where pictures come from and how they are split."""

    source: Source
    train_size: Positive | None
    validation_size: Count
    split_seed: Seed
    noise: Noise
    noise_per_seed: bool
    augment: Augment

    @model_validator(mode="after")
    def _asymmetric_noise_has_a_map(self) -> Self:
        if self.noise.kind == "asymmetric" and self.noise.map is None and self.source.asymmetric_map() is None:
            raise ValueError(
                "noise.map: asymmetric noise needs a map from class to class, because the source"
                f" {self.source.name!r} has none of its own"
            )
        return self


class Threat(Section):
    """The set of allowed perturbations, radius in 255ths."""

    norm: Literal["linf", "l2"]
    eps_255: PositiveFloat


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


class StepSchedule(Section):
    """Learning rate times ``factor`` on *entering* each of the milestone epochs."""

    name: Literal["step"]
    milestones: Epochs
    factor: Annotated[float, Field(gt=0, lt=1)]


class CosineSchedule(Section):
    """Half a cosine from the full rate to 0 at the end of the last epoch."""

    name: Literal["cosine"]


class ConstantSchedule(Section):
    """The same rate throughout."""

    name: Literal["constant"]


Schedule = Annotated[StepSchedule | CosineSchedule | ConstantSchedule, Discriminator("name")]


class TrainAttack(Section):
    """PGD inside training: steps, step size in 255ths, random start."""

    steps: Positive
    step_size_255: PositiveFloat
    random_start: bool


class Selection(Section):
    """How the best epoch is chosen on the validation split: PGD of so many steps, every so many epochs."""

    steps: Positive
    every: Positive


class Train(Section):
    """Adversarial training."""

    epochs: Positive
    batch_size: Positive
    optimizer: Optimizer
    schedule: Schedule
    attack: TrainAttack
    attack_bn: Literal["eval", "train"]
    selection: Selection
    keep_epochs: Epochs

    @model_validator(mode="after")
    def _kept_epochs_exist(self) -> Self:
        late = [epoch for epoch in self.keep_epochs if epoch > self.epochs]
        if late:
            raise ValueError(f"keep_epochs {late} come after the last epoch, {self.epochs}")
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
        for policy in (self.labels, self.weights):
            check = getattr(policy, "check_objective", None)
            if check:
                check(self.objective)
        return self


class Sweep(Section):
    """Accuracy as a curve over the radius."""

    eps_255: Annotated[tuple[PositiveFloat, ...], Strict(False), Field(min_length=1), AfterValidator(_unique)]
    steps: Positive


class Sanity(Section):
    """Signs of masked gradients, on a few examples."""

    n_examples: Positive
    steps: Annotated[int, Field(ge=4)]


class Evaluate(Section):
    """Robustness evaluation on the test split."""

    n_examples: Positive | None
    batch_size: Positive
    seed: Seed
    attacks: dict[Name, Attack]
    sweep: Sweep | None
    sanity: Sanity | None

    @model_validator(mode="after")
    def _names_free(self) -> Self:
        for taken, what in (("natural", "is always measured"), ("worst", "is the worst case over the attacks")):
            if taken in self.attacks:
                raise ValueError(f"{taken!r} {what} and cannot name an attack")
        return self


class Probe(Section):
    """Cross-fitted linear probe on the penultimate features."""

    folds: Annotated[int, Field(ge=2)]
    l2: PositiveFloat


class Analyze(Section):
    """Information-theoretic analysis."""

    n_examples: Positive | None
    batch_size: Positive
    seed: Seed
    attack: TrainAttack
    ece_bins: Positive
    probe: Probe


class Report(Section):
    """The comparison the report leads with."""

    baseline: Name
    bootstrap: Annotated[int, Field(ge=100)]
    seed: Seed


class Config(Section):
    """All of params.yaml."""

    experiment: Experiment
    data: Data
    model: Model
    threat: Threat
    warmup: Warmup
    train: Train
    methods: dict[Name, Method]
    evaluate: Evaluate
    analyze: Analyze
    report: Report

    @model_validator(mode="after")
    def _sections_fit(self) -> Self:
        for name in (*self.experiment.methods, self.report.baseline):
            if name not in self.methods:
                raise ValueError(
                    f"method {name!r} is used but not declared under methods.{suggest(name, self.methods)}"
                    f" Declared: {', '.join(self.methods)}."
                )
        if self.data.train_size is not None and self.train.batch_size > self.data.train_size:
            raise ValueError(
                f"train.batch_size {self.train.batch_size} is larger than the training set"
                f" (data.train_size {self.data.train_size})"
            )
        if self.warmup.objective == "adversarial" and self.warmup.epochs >= self.train.epochs:
            raise ValueError(
                f"warmup.epochs {self.warmup.epochs} leaves nothing of train.epochs {self.train.epochs}:"
                " an adversarial warm-up is the first part of training"
            )
        for name in self.experiment.methods:
            self._check_method(name, self.methods[name])
        return self

    def _check_method(self, name: str, method: Method) -> None:
        for key in ("labels.start_epoch", "labels.natural_forward_from", "weights.start_epoch"):
            policy, option = key.split(".")
            first = getattr(getattr(method, policy), option, None)
            if first is not None and first > self.train.epochs:
                raise ValueError(
                    f"methods.{name}.{key} {first} comes after the last epoch, train.epochs {self.train.epochs}:"
                    " the policy would never begin"
                )
        if method.objective.needs_random_start and not self.train.attack.random_start:
            raise ValueError(
                f"train.attack.random_start: false does not go with methods.{name}: what {method.objective.name!r}"
                " maximises has no gradient at the natural picture, so that the attack would follow rounding errors"
            )
        if self.warmup.objective == "standard" or self.warmup.epochs == 0 or method.start == "initial":
            return
        policies = [(key, getattr(method, key)) for key in ("objective", "labels", "weights")]
        for key, policy in policies:
            if not policy.same_until(self.warmup.epochs):
                raise ValueError(
                    f"methods.{name} cannot continue the shared adversarial warm-up of {self.warmup.epochs} epochs: its"
                    f" {key} ({policy.name}) already differs from plain adversarial training in them."
                    f" Set methods.{name}.start: initial, or shorten warmup.epochs"
                )
        early = [epoch for epoch in self.train.keep_epochs if epoch <= self.warmup.epochs]
        if early:
            raise ValueError(
                f"train.keep_epochs {early} lie in the shared adversarial warm-up of {self.warmup.epochs} epochs, which"
                f" keeps none for methods.{name}. Leave them out, set methods.{name}.start: initial, or shorten"
                " warmup.epochs"
            )
