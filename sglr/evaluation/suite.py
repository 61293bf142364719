"""Running a suite of attacks on trained models and writing what came out."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from sglr import files, models, threat
from sglr.attacks import correct_under, predictions
from sglr.attacks.autoattack import captured_warnings
from sglr.config import Config
from sglr.data import Prepared, Split
from sglr.evaluation.statistics import wilson

CHECKPOINTS = ("best", "last")


@dataclass
class Evaluation:
    """Outcomes per example: ``correct["last"]["pgd20"]`` bool (n,), for the first n test examples."""

    correct: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
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
        result["flags"] = self.flags
        return result


def evaluate(config: Config, data: Prepared, trained: Path, *, device: torch.device) -> Evaluation:
    """Attack the best and the last model of a training folder with every attack of ``config.evaluate``.

    Natural accuracy comes first. All pictures come from the test split, in its order; the attacks of both models use
    the same random streams. FileError when a model is missing or does not fit, or the test split is empty.
    """
    section = config.evaluate
    test = data.test(device)
    if len(test) == 0:
        raise files.FileError("the test split is empty: there is nothing to evaluate on.")
    result = Evaluation()
    names = [name for name in CHECKPOINTS if name == "last" or any((trained / name).iterdir())]
    with tqdm(total=len(names) * (1 + len(section.attacks)), desc="evaluate", unit="attack", disable=None, leave=False) as bar:
        for name in names:
            model = models.load_model(trained / name).to(device)
            result.correct[name] = {}
            for attack in ("natural", *section.attacks):
                bar.set_postfix(model=name, attack=attack)
                outcome, warnings = _outcome(config, model, test, attack)
                result.correct[name][attack] = outcome
                result.flags += [f"{name}/{attack}: {warning}" for warning in warnings]
                bar.update()
    return result


def write(result: Evaluation, folder: Path) -> None:
    """Write ``metrics.json`` and ``outcomes.npz`` (bool per example, and the test indices they refer to)."""
    arrays = {f"{name}/{attack}": outcome for name, outcomes in result.correct.items() for attack, outcome in outcomes.items()}
    arrays |= {f"index/{attack}": np.arange(len(outcome)) for attack, outcome in result.correct["last"].items()}
    files.write_arrays(folder / "outcomes.npz", arrays)
    files.write_json(folder / "metrics.json", result.metrics())


def _outcome(config: Config, model: nn.Module, test: Split, attack: str) -> tuple[np.ndarray, list[str]]:
    """Correct predictions (n,) under one attack, and what AutoAttack warned of."""
    section = config.evaluate
    options = section.attacks.get(attack)
    wanted = [n for n in (section.n_examples, getattr(options, "n_examples", None)) if n is not None]
    n = min([len(test), *wanted])
    x, y = test.pictures(slice(0, n)), test.true[:n]
    if any(module.training for module in model.modules()):
        raise RuntimeError("a model under evaluation must be in eval mode throughout")
    if options is None:
        return (predictions(model, x, section.batch_size) == y).cpu().numpy(), []
    ball = threat.build(config.threat.norm, config.threat.eps_255 / 255)
    with captured_warnings() as warnings:
        correct = correct_under(
            model, x, y, options.build(ball), seed=section.seed, batch_size=section.batch_size
        )
    return correct.cpu().numpy(), warnings


def _interval(outcome: np.ndarray) -> dict[str, float]:
    low, high = wilson(int(outcome.sum()), len(outcome))
    return {"low": low, "high": high}
