"""Running a suite of attacks on trained models and writing what came out."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from sglr import files, models, threat
from sglr.attacks.accuracy import LogitsError
from sglr.config import Config
from sglr.data import Prepared, Split
from sglr.evaluation.chunks import outcomes
from sglr.evaluation.journal import Journal
from sglr.evaluation.sanity import Subject, sanity
from sglr.evaluation.statistics import wilson
from sglr.evaluation.sweep import sweep
from sglr.evaluation.truth import full_precision, inspect, unchanged

CHECKPOINTS = ("best", "last")
# Key of the worst case per example over the attacks that were run on as many examples as the suite.
WORST = "worst"


@dataclass
class Evaluation:
    """Outcomes per example: ``correct["last"]["pgd20"]`` bool (n,), for the first n test examples.

    sweep: the same by radius in 255ths, ``sweep["last"]["12.75"]``; empty when none was asked for.
    """

    correct: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    sweep: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    flags: list[str] = field(default_factory=list)

    def metrics(self) -> dict[str, Any]:
        """Accuracies with 95% Wilson intervals, gaps best - last, counts and flags (the file contract)."""
        result: dict[str, Any] = {
            name: {attack: outcome.mean().item() for attack, outcome in outcomes.items()}
            for name, outcomes in self.correct.items()
        }
        if "best" in result:
            result["gap"] = {attack: result["best"][attack] - result["last"][attack] for attack in result["last"]}
        result["interval"] = {
            name: {attack: _interval(outcome) for attack, outcome in outcomes.items()}
            for name, outcomes in self.correct.items()
        }
        result["n_examples"] = {attack: len(outcome) for attack, outcome in self.correct["last"].items()}
        if self.sweep:
            result["sweep"] = {
                name: {eps: correct.mean().item() for eps, correct in curve.items()}
                for name, curve in self.sweep.items()
            }
        result["flags"] = self.flags
        return result


def evaluate(
    config: Config, data: Prepared, trained: Path, *, device: torch.device, journal: Path | None = None
) -> Evaluation:
    """Attack the best and the last model of a training folder with every attack of ``config.evaluate``.

    Natural accuracy comes first; the attacks of both models use the same random streams. All pictures come from the
    test split, in its order. With a ``journal`` folder, which must belong to these inputs alone, finished chunks are
    kept there and not repeated. FileError when a model is missing or does not fit, the test split is empty, or a
    model's outputs cannot count (see ``truth.inspect``).
    """
    test = data.test(device)
    if len(test) == 0:
        raise files.FileError("the test split is empty: there is nothing to evaluate on.")
    result = Evaluation()
    names = [name for name in CHECKPOINTS if name == "last" or any((trained / name).iterdir())]
    chunks = sum(-(-_size(config, test, attack) // config.evaluate.batch_size) for attack in _attacks(config))
    progress = tqdm(total=len(names) * chunks, desc="evaluate", unit="chunk", disable=None, leave=False)
    with progress as bar, full_precision():
        for name in names:
            path = trained / name
            model = models.load_model(path).to(device)
            try:
                with unchanged(model, path):
                    _checkpoint(config, data.num_classes, test, model, path, Journal(journal).below(name), result, bar)
            except LogitsError as error:
                raise files.FileError(f"the model at {path} cannot be evaluated: {error}.") from error
    return result


def write(result: Evaluation, folder: Path) -> None:
    """Write ``metrics.json`` and ``outcomes.npz`` (bool per example, and the test indices they refer to)."""
    arrays = {f"{name}/{attack}": found[attack] for name, found in result.correct.items() for attack in found}
    arrays |= {f"index/{attack}": np.arange(len(outcome)) for attack, outcome in result.correct["last"].items()}
    arrays |= {f"sweep/{name}/{eps}": curve[eps] for name, curve in result.sweep.items() for eps in curve}
    files.write_arrays(folder / "outcomes.npz", arrays)
    files.write_json(folder / "metrics.json", result.metrics())


def _checkpoint(
    config: Config, num_classes: int, test: Split, model: nn.Module, path: Path, journal: Journal, result: Evaluation,
    bar: "tqdm[NoReturn]",
) -> None:  # fmt: skip
    """Measure one checkpoint, called as its folder, and add what was found to ``result``."""
    section, name = config.evaluate, path.name
    ball = threat.build(config.threat.norm, config.threat.eps_255 / 255)
    size = _size(config, test, "natural")
    doubts = inspect(model, test.pictures(slice(0, size)), num_classes, section.batch_size, path)
    result.flags += [f"{name}: {doubt}" for doubt in doubts]
    found = result.correct[name] = {}
    for attack in _attacks(config):
        bar.set_postfix(model=name, attack=attack)
        n = _size(config, test, attack)
        found[attack], warnings = outcomes(
            model, test.pictures(slice(0, n)), test.true[:n], section.attacks.get(attack), threat=ball,
            seed=section.seed, chunk=section.batch_size, journal=journal.below(attack), on_chunk=bar.update,
        )  # fmt: skip
        result.flags += [f"{name}/{attack}: {warning}" for warning in warnings]
    # One attack says nothing that its own row does not say.
    whole = [outcome for attack, outcome in found.items() if attack != "natural" and len(outcome) == size]
    if len(whole) >= 2:
        found[WORST] = np.logical_and.reduce(whole)
    common: dict[str, Any] = {
        "ball": lambda eps: threat.build(config.threat.norm, eps), "seed": section.seed, "chunk": section.batch_size
    }  # fmt: skip
    if section.sweep:
        result.sweep[name] = sweep(
            model, test.pictures(slice(0, size)), test.true[:size], section.sweep.eps_255, steps=section.sweep.steps,
            journal=journal.below("sweep"), **common,
        )  # fmt: skip
    if section.sanity:
        n = min(size, section.sanity.n_examples)
        subject = Subject(
            model, test.pictures(slice(0, n)), test.true[:n], eps=config.threat.eps_255 / 255,
            steps=section.sanity.steps, journal=journal.below("sanity"), **common,
        )  # fmt: skip
        result.flags += [f"{name}: {sign}" for sign in sanity(subject)]


def _attacks(config: Config) -> tuple[str, ...]:
    return ("natural", *config.evaluate.attacks)


def _size(config: Config, test: Split, attack: str) -> int:
    """How many test examples an attack is run on."""
    options = config.evaluate.attacks.get(attack)
    wanted = (config.evaluate.n_examples, getattr(options, "n_examples", None))
    return min([len(test), *(n for n in wanted if n is not None)])


def _interval(outcome: np.ndarray) -> dict[str, float]:
    low, high = wilson(int(outcome.sum()), len(outcome))
    return {"low": low, "high": high}
