"""All of params.yaml, and checks across its sections."""

from typing import Self

from pydantic import model_validator

from sglr.config.errors import undeclared
from sglr.config.fields import Model, Name
from sglr.config.measurements import Analyze, Evaluate, Report
from sglr.config.sections import Data, Experiment, Method, ThreatSettings, Train, Warmup
from sglr.config.strict import Section


class Config(Section):
    """All of params.yaml."""

    experiment: Experiment
    data: Data
    model: Model
    threat: ThreatSettings
    warmup: Warmup
    train: Train
    methods: dict[Name, Method]
    evaluate: Evaluate
    analyze: Analyze
    report: Report

    @model_validator(mode="after")
    def _sections_fit(self) -> Self:
        if "epoch" in self.experiment.methods:
            raise ValueError("'epoch' is a column of the report's curves and cannot name a method")
        for name in (*self.experiment.methods, self.report.baseline):
            if name not in self.methods:
                raise ValueError(undeclared(name, self.methods))
        examples = self.data.training_examples
        if examples is not None and self.train.batch_size > examples:
            raise ValueError(
                f"train.batch_size {self.train.batch_size} is larger than the training set"
                f" (data.train_size {'null: ' if self.data.train_size is None else ''}{examples})"
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
        parts = {"labels": method.labels, "weights": method.weights}
        if len(method.weights.parts()) > 1:
            parts |= {f"weights.of.{place}": part for place, part in enumerate(method.weights.parts())}
        for part, policy in parts.items():
            for option in ("start_epoch", "natural_forward_from"):
                first = getattr(policy, option, None)
                if first is not None and first > self.train.epochs:
                    raise ValueError(
                        f"methods.{name}.{part}.{option} {first} comes after the last epoch, train.epochs"
                        f" {self.train.epochs}: the policy would never begin"
                    )
        if method.objective.needs_random_start and not self.train.attack.random_start:
            raise ValueError(
                f"train.attack.random_start: false does not fit methods.{name}: what {method.objective.name!r}"
                " maximises has no gradient at the natural image, so that the attack would follow rounding errors"
            )
        if self.warmup.objective == "standard" or self.warmup.epochs == 0 or method.start == "initial":
            return
        policies = [(key, getattr(method, key)) for key in ("objective", "labels", "weights")]
        for key, policy in policies:
            # An objective that builds on another inherits its word.
            attacks_otherwise = key == "objective" and policy.for_seed(self.experiment.seeds[0]).build().own_attack
            if attacks_otherwise or not policy.same_until(self.warmup.epochs):
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
