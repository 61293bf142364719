"""Everything the report reads: the items of the methods and seeds that are listed now, and nothing else."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sglr import files
from sglr.config import Config
from sglr.config.names import CHECKPOINTS, WEIGHTS, WORST

# Tables of the analysis that figures are drawn from.
TABLES = ("memorization", "quantities", "calibration", "landscape")


@dataclass(frozen=True)
class RunResult:
    """One method trained with one seed.

    training, evaluation, analysis: the three metrics.json; history: rows of history.csv; outcomes: "last/pgd20" ->
    float64 (n,), 1 where the example was classified correctly; index: attack -> int64 (n,) test indices of those
    examples; labels: given, true and refined (N,), the classes of the training examples, the last being the most
    probable one after the last epoch; trace, of the first seed alone: index (t,) of the examples whose labels were
    traced and their p (epochs, t, C); notes, tables: the analysis' notes.json, and its csv files by name;
    weights: MD5 of the weights by checkpoint, of those that are there.
    """

    method: str
    seed: int
    training: dict[str, Any]
    history: list[dict[str, Any]]
    labels: dict[str, np.ndarray]
    trace: dict[str, np.ndarray]
    evaluation: dict[str, Any]
    outcomes: dict[str, np.ndarray]
    index: dict[str, np.ndarray]
    analysis: dict[str, Any]
    notes: dict[str, str]
    tables: dict[str, list[dict[str, Any]]]
    weights: dict[str, str]


@dataclass(frozen=True)
class Study:
    """The listed items, the data they share, the attacks in the order of params.yaml, and what the audit found.

    audited: flags of the audit, "at-0/last: ..."; transfer: the rows of its transfer.csv; looked_at: the arrays of its
    images.npz.
    "natural" comes first; "worst", the worst case per example over the attacks, last where every item has it.
    """

    config: Config
    meta: dict[str, Any]
    data_sha256: str
    attacks: tuple[str, ...]
    items: tuple[RunResult, ...]
    audited: tuple[str, ...]
    transfer: tuple[dict[str, Any], ...]
    looked_at: dict[str, np.ndarray]

    @property
    def methods(self) -> tuple[str, ...]:
        return self.config.experiment.methods

    @property
    def has_best(self) -> bool:
        """Whether a best epoch was chosen: there is none without a validation split."""
        return all("best" in item.evaluation for item in self.items)

    @property
    def wrong_labels(self) -> int:
        """How many training examples have a given label that is not the true one (of one draw, if seeds draw anew)."""
        return int(self.meta.get("noise", {}).get("flipped", 0))

    @property
    def checkpoints(self) -> tuple[str, ...]:
        return CHECKPOINTS if self.has_best else ("last",)

    def of(self, method: str) -> list[RunResult]:
        """The items of one method, in the order of the seeds."""
        return [item for item in self.items if item.method == method]


def read(config: Config, artifacts: Path) -> Study:
    """Read ``artifacts/{data,train,evaluate,audit,analyze}``.

    Raises FileError that names the missing, damaged or unfitting file.
    """
    meta = artifacts / "data" / "meta.json"
    attacks = ("natural", *config.evaluate.attacks)
    items = tuple(
        _read_item(artifacts, method, seed, attacks, traced=seed == config.experiment.seeds[0])
        for method in config.experiment.methods
        for seed in config.experiment.seeds
    )
    if items and all(WORST in item.evaluation["last"] and WORST in item.index for item in items):
        attacks = (*attacks, WORST)
    audit, transfer = (_present(artifacts / "audit" / name) for name in ("metrics.json", "transfer.csv"))
    flags = tuple(map(str, files.read_json(audit)["flags"]))
    rows = tuple(files.read_rows(transfer, text=("checkpoint", "model", "images_of")))
    looked_at = files.read_arrays(_present(artifacts / "audit" / "images.npz"))
    return Study(config, files.read_json(_present(meta)), files.sha256(meta), attacks, items, flags, rows, looked_at)


def _read_item(artifacts: Path, method: str, seed: int, attacks: tuple[str, ...], *, traced: bool) -> RunResult:
    train, evaluate, analyze = (artifacts / stage / f"{method}-{seed}" for stage in ("train", "evaluate", "analyze"))
    arrays = files.read_arrays(_present(evaluate / "outcomes.npz"))
    index = {name.removeprefix("index/"): values for name, values in arrays.items() if name.startswith("index/")}
    item = RunResult(
        method=method,
        seed=seed,
        training=files.read_json(_present(train / "metrics.json")),
        history=files.read_rows(_present(train / "history.csv")),
        labels=_read_labels(train / "labels.npz"),
        trace=files.read_arrays(_present(train / "labels_trace.npz")) if traced else {},
        evaluation=files.read_json(_present(evaluate / "metrics.json")),
        outcomes={name: values.astype(np.float64) for name, values in arrays.items() if not name.startswith("index/")},
        index=index,
        analysis=files.read_json(_present(analyze / "metrics.json")),
        notes=files.read_json(_present(analyze / "notes.json")),
        tables={
            name: files.read_rows(analyze / f"{name}.csv") for name in TABLES if (analyze / f"{name}.csv").is_file()
        },
        weights={name: files.md5(path) for name in CHECKPOINTS if (path := train / name / WEIGHTS).is_file()},
    )
    for checkpoint in CHECKPOINTS if "best" in item.evaluation else ("last",):
        for attack in attacks:
            _require(attack in item.evaluation.get(checkpoint, {}), f"{checkpoint}.{attack}", evaluate / "metrics.json")
            outcome = item.outcomes.get(f"{checkpoint}/{attack}")
            fits = outcome is not None and attack in index and outcome.shape == index[attack].shape
            _require(fits, f"{checkpoint}/{attack} with index/{attack}", evaluate / "outcomes.npz")
    return item


def _read_labels(path: Path) -> dict[str, np.ndarray]:
    """Classes alone: the probabilities of all items would be gigabytes."""
    found = files.read_arrays(_present(path))
    for key in ("p", "given", "true"):
        _require(key in found, key, path)
    return {"given": found["given"], "true": found["true"], "refined": found["p"].argmax(1)}


def _present(path: Path) -> Path:
    if not path.is_file():
        raise files.FileError(f"{path} is missing: run the stage that writes it (`dvc repro` runs what is needed).")
    return path


def _require(found: bool, key: str, path: Path) -> None:
    if not found:
        raise files.FileError(f"{path} has no usable {key!r}: run the stage that writes it again (`dvc repro`).")
