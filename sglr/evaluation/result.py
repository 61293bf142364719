"""What a suite of attacks found, as numbers and as files."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sglr import files
from sglr.evaluation.outcome import Outcome
from sglr.evaluation.statistics import wilson

Outcomes = dict[str, dict[str, np.ndarray]]


@dataclass
class Evaluation:
    """Outcomes per example: ``correct["last"]["pgd20"]`` bool (n,), for the first n test examples.

    sweep: the same by radius in 255ths, ``sweep["last"]["12.75"]``; empty when none was asked for. worst: per
    checkpoint, the outcome of the first examples under all attacks together, with the worst-case image of each.
    """

    correct: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    sweep: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    worst: dict[str, Outcome] = field(default_factory=dict)
    flags: list[str] = field(default_factory=list)

    def accuracy(self, attack: str, checkpoint: str = "last") -> float:
        """The share of examples that stay correct under an attack, "natural" without one; KeyError for an unknown."""
        return float(self._outcome(attack, checkpoint).mean())

    def interval(self, attack: str, checkpoint: str = "last") -> tuple[float, float]:
        """Its 95% Wilson interval over the examples."""
        ends = _interval(self._outcome(attack, checkpoint))
        return ends["low"], ends["high"]

    def _outcome(self, attack: str, checkpoint: str) -> np.ndarray:
        for kind, name, known in (
            ("checkpoint", checkpoint, self.correct),
            ("attack", attack, self.correct.get(checkpoint, {})),
        ):
            if name not in known:
                raise KeyError(f"no {kind} {name!r} was evaluated, but {', '.join(known)}")
        return self.correct[checkpoint][attack]

    def metrics(self) -> dict[str, Any]:
        """Accuracies with 95% Wilson intervals, gaps best - last, counts and flags (the file contract)."""
        result: dict[str, Any] = _accuracies(self.correct)
        if "best" in result:
            result["gap"] = {attack: result["best"][attack] - result["last"][attack] for attack in result["last"]}
        result["interval"] = _intervals(self.correct)
        result["n_examples"] = {attack: len(outcome) for attack, outcome in self.correct["last"].items()}
        if self.sweep:
            result["sweep"] = _accuracies(self.sweep) | {"interval": _intervals(self.sweep)}
        result["flags"] = self.flags
        return result


def radius_key(eps_255: float) -> str:
    """A radius of the sweep as a key: as short as it tells radii apart."""
    short = f"{eps_255:g}"
    return short if float(short) == eps_255 else repr(float(eps_255))


def write(result: Evaluation, folder: str | Path) -> None:
    """Write what was found into a folder.

    ``metrics.json``; ``outcomes.npz``: bool per example, and the test indices they refer to; ``worst.npz``: per
    checkpoint, ``<checkpoint>/images`` (k, C, H, W) float32 of the first examples, with ``correct`` and ``margin``
    (k,), see ``Outcome``.
    """
    folder = Path(folder)
    arrays = {f"{name}/{attack}": found[attack] for name, found in result.correct.items() for attack in found}
    arrays |= {f"index/{attack}": np.arange(len(outcome)) for attack, outcome in result.correct["last"].items()}
    arrays |= {f"sweep/{name}/{eps}": curve[eps] for name, curve in result.sweep.items() for eps in curve}
    files.write_arrays(folder / "outcomes.npz", arrays)
    worst = {
        f"{name}/{kept}": getattr(outcome, kept)
        for name, outcome in result.worst.items()
        for kept in ("images", "correct", "margin")
    }
    files.write_arrays(folder / "worst.npz", worst)
    files.write_json(folder / "metrics.json", result.metrics())


def _accuracies(outcomes: Outcomes) -> dict[str, Any]:
    return {name: {attack: correct.mean().item() for attack, correct in of.items()} for name, of in outcomes.items()}


def _intervals(outcomes: Outcomes) -> dict[str, Any]:
    return {name: {attack: _interval(correct) for attack, correct in of.items()} for name, of in outcomes.items()}


def _interval(outcome: np.ndarray) -> dict[str, float]:
    low, high = wilson(int(outcome.sum()), len(outcome))
    return {"low": low, "high": high}
