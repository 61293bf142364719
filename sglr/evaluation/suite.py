"""A suite of attacks, with its sweep and its checks, on one model."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from torch import nn
from tqdm import tqdm

from sglr import threat
from sglr.attacks import REGISTRY
from sglr.config import Config
from sglr.config.names import WORST
from sglr.data import Images, Split
from sglr.evaluation.chance import at_chance
from sglr.evaluation.measurement import Measurement
from sglr.evaluation.model_checks import inspect
from sglr.evaluation.outcome import Outcome
from sglr.evaluation.pieces import Pieces
from sglr.evaluation.result import Evaluation, radius_key
from sglr.evaluation.sanity import SanityInputs, sanity
from sglr.evaluation.skew import skewed
from sglr.evaluation.worst import covered
from sglr.models.compiling import compiled
from sglr.random import seeded

# Worst-case images are kept for so many test examples, from the first on.
KEPT = 1000
# Called with a checkpoint's name, its natural accuracy and the number of examples.
OnNatural = Callable[[str, float, int], object]


@dataclass(frozen=True)
class Suite:
    """What ``config.evaluate`` asks of every model, on the first examples of a test split.

    test: on the device of the models. pieces: where finished work is kept, that of each checkpoint in a folder of its
    name. on_natural: is told a checkpoint's natural accuracy before any of its attacks; None: nobody is.
    """

    config: Config
    test: Split
    pieces: Pieces
    on_natural: OnNatural | None = None

    def skew(self) -> list[str]:
        """Flags of test examples that do not stand for all, whatever the model."""
        section = self.config.evaluate
        looking = {"natural": None, **section.attacks} | ({"sanity": section.sanity} if section.sanity else {})
        return skewed(self.test.true, {name: self._examples(own) for name, own in looking.items()})

    def doubts(self, model: nn.Module, name: str, num_classes: int, called: str) -> list[str]:
        """Flags of what makes outcomes of a model doubtful before it is attacked; errors, which name it as it is
        ``called``, as in ``inspect``."""
        section = self.config.evaluate
        natural = Images(self.test, self._examples())
        with seeded(section.seed, self.test.true.device):
            flags = inspect(model, natural, num_classes, section.batch_size, called)
        return [f"{name}: {flag}" for flag in flags]

    def progress(self, models: int) -> "tqdm[NoReturn]":
        """A bar for the chunks of all measurements of so many models."""
        chunks = sum(measurement.chunks for _, measurement in self._planned(nn.Identity(), "any"))
        return tqdm(total=models * chunks, desc="evaluate", unit="chunk", disable=None, leave=False)

    def measure(self, model: nn.Module, name: str, result: Evaluation, bar: "tqdm[NoReturn]") -> None:
        """Measure one checkpoint, called ``name``, and add what was found to ``result``."""
        attacks, swept = self._outcomes(model, name, bar)
        found = result.correct[name] = {attack: outcome.correct for attack, outcome in attacks.items()}
        result.flags += [f"{name}: {flag}" for flag in at_chance(found["natural"], self.test.true[: self._examples()])]
        result.flags += [f"{name}/{attack}: {said}" for attack, outcome in attacks.items() for said in outcome.warnings]
        result.worst[name] = _worst(attacks)
        # One attack says nothing that its own row does not say.
        whole = covered({attack: len(outcome) for attack, outcome in found.items()})
        if len(whole) >= 2:
            found[WORST] = np.logical_and.reduce([found[attack] for attack in whole])
        if swept:
            result.sweep[name] = {eps: outcome.correct for eps, outcome in swept.items()}
        result.flags += [f"{name}: {flag}" for flag in self._sanity(model, name)]

    def take(self, model: nn.Module, name: str, rank: int, nproc: int) -> None:
        """Do every nproc-th chunk of one checkpoint, from ``rank`` on, only to leave its pieces on disk.

        Where somebody is to be told natural accuracy, the chunks that the others have not finished yet are done here,
        too.
        """
        said = f"evaluate, process {rank} of {nproc}"
        for key, measurement in self._planned(self._network(model), name):
            numbers = range(rank, measurement.chunks, nproc)
            for number in tqdm(numbers, desc=said, unit="chunk", disable=rank > 0 or None, leave=False):
                measurement.part(number)
            if key == ("natural",):
                self._tell(name, measurement)

    def _outcomes(
        self, model: nn.Module, name: str, bar: "tqdm[NoReturn]"
    ) -> tuple[dict[str, Outcome], dict[str, Outcome]]:
        """Outcomes by attack, and by radius of the sweep."""
        attacks: dict[str, Outcome] = {}
        swept: dict[str, Outcome] = {}
        for key, measurement in self._planned(self._network(model), name):
            bar.set_postfix(model=name, attack=" ".join(key))
            (attacks if len(key) == 1 else swept)[key[-1]] = measurement.whole(bar.update)
            if key == ("natural",):
                self._tell(name, measurement)
        return attacks, swept

    def _planned(self, model: nn.Module, name: str) -> Iterator[tuple[tuple[str, ...], Measurement]]:
        """The attacks and then the rising radii of the sweep, by name: ("pgd20",), ("sweep", "12.75").

        The smaller balls lie within the larger: an example that is broken at one radius counts as broken at every
        larger one, so that the curve never rises.
        """
        section, pieces = self.config.evaluate, self.pieces.below(name)

        def measurement(key: tuple[str, ...], n: int, eps_255: float, **more: Any) -> Measurement:
            return Measurement(
                model, Images(self.test, n), self.test.true[:n], threat=self._ball(eps_255 / 255),
                seed=section.seed, chunk=section.batch_size, pieces=pieces.below(*key), **more,
            )  # fmt: skip

        natural = measurement(("natural",), self._examples(), 0, options=None, keep=KEPT)
        yield ("natural",), natural
        for attack, options in section.attacks.items():
            n, eps_255 = self._examples(options), self.config.threat.eps_255
            yield (attack,), measurement((attack,), n, eps_255, options=options, keep=KEPT, before=natural)
        if section.sweep is None:
            return
        options = REGISTRY.options("pgd", steps=section.sweep.steps)
        yield ("sweep", "0"), (smaller := natural)
        for eps_255 in sorted(section.sweep.eps_255):
            key = ("sweep", radius_key(eps_255))
            smaller = measurement(key, self._examples(), eps_255, options=options, before=smaller)
            yield key, smaller

    def _sanity(self, model: nn.Module, name: str) -> list[str]:
        """Signs of masked gradients; none where they are not looked for."""
        section = self.config.evaluate
        if not section.sanity:
            return []
        n = self._examples(section.sanity)
        inputs = SanityInputs(
            model, self.test.images(slice(0, n)), self.test.true[:n], eps=self.config.threat.eps_255 / 255,
            steps=section.sanity.steps, ball=self._ball, seed=section.seed,
            chunk=section.batch_size, pieces=self.pieces.below(name, "sanity"),
        )  # fmt: skip
        with seeded(section.seed, self.test.true.device):
            return sanity(inputs)

    def _network(self, model: nn.Module) -> nn.Module:
        """The model as attacks call it."""
        network = compiled(model, self.test.true.device, self.config.evaluate.compile, any_size=True)
        if network is not model:
            model.requires_grad_(False)
        return network

    def _tell(self, name: str, natural: Measurement) -> None:
        if self.on_natural:
            correct = natural.whole().correct
            with tqdm.external_write_mode():
                self.on_natural(name, float(correct.mean()), len(correct))

    def _ball(self, eps: float) -> threat.Threat:
        return threat.build(self.config.threat.norm, eps)

    def _examples(self, own: Any = None) -> int:
        """How many of the first examples something is run on, whose own options may say fewer."""
        return self.config.evaluate.examples(len(self.test), own)


def _worst(attacks: dict[str, Outcome]) -> Outcome:
    """The first examples under all attacks together, those without an attack among them."""
    found = attacks["natural"].first(KEPT)
    for outcome in attacks.values():
        found = found.worse(outcome.first(KEPT))
    return found
