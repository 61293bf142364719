"""The analysis of one training run: reads its folder, gives numbers and tables."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from sglr import files, models
from sglr.config import Config
from sglr.data import Prepared, Split
from sglr.information import calibration, entropy, gradients, memorization, notes
from sglr.information.activations import INPUTS, Activations, observe
from sglr.information.checks import Floats, Integers
from sglr.information.findings import Findings
from sglr.information.probe import TooFewExamplesError, probe_information
from sglr.information.trained import Trained, check_same_labels, read
from sglr.models import Classifier
from sglr.random import numpy_stream

CHECKPOINTS = ("best", "last")
TABLES = ("memorization", "gradients", "calibration")
Rows = list[dict[str, Any]]


def analyze(config: Config, data: Prepared, folder: Path, seed: int, device: torch.device) -> dict[str, Any]:
    """Analyse the best and the last model of the training in ``folder``, which ran with ``seed`` on ``data``.

    Keys of the result: ``best`` (absent without a validation split), ``last`` and ``run``, each name -> number;
    ``interval``, part -> name -> low, high, for the means among them; ``n_examples``; ``notes``, name -> text: what was
    assumed, and why something is absent; ``tables``, the rows of the csv files that ``write`` makes.

    Test pictures are the first ``analyze.n_examples`` of the test split, training pictures as many drawn with
    ``analyze.seed``. Raises FileError when a file is missing, damaged, or belongs to other data.
    """
    trained = read(folder)
    train, test = data.train(seed, device), data.test(device)
    check_same_labels(trained, train, folder)
    analysis = _Analysis(config, trained, train, test)
    names = [name for name in CHECKPOINTS if trained.epoch_of(name) is not None]
    with tqdm(total=2 * len(names), desc="analyze", unit="pass", disable=None, leave=False) as bar:
        for name in names:
            model = cast(Classifier, models.load_model(folder / name).to(device).eval())
            bar.set_postfix(model=name)
            for look in (analysis.predictions, analysis.training):
                look(name, model)
                bar.update()
    analysis.run()
    return analysis.result()


def write(result: dict[str, Any], folder: Path) -> None:
    """Write what ``analyze`` gave: ``metrics.json`` and one csv per table."""
    for name in TABLES:
        files.write_rows(folder / f"{name}.csv", result["tables"][name])
    files.write_json(folder / "metrics.json", {key: value for key, value in result.items() if key != "tables"})


class _Analysis:
    """The analysis under way: subsets chosen once, findings collected part by part."""

    def __init__(self, config: Config, trained: Trained, train: Split, test: Split) -> None:
        self.config, self.trained, self.train, self.test = config, trained, train, test
        self.test_index = torch.arange(_at_most(config, len(test)), device=test.given.device)
        drawn = numpy_stream(config.analyze.seed, "training subset").permutation(len(train))
        self.train_index = np.sort(drawn[: _at_most(config, len(train))])
        self.parts: dict[str, Findings] = {}
        self.tables: dict[str, Rows] = {name: [] for name in TABLES}
        self.tables["memorization"] += memorization.curves(trained.history)
        self.notes = {
            "source": notes.SOURCE, "attack": notes.ATTACK, "gradient": notes.GRADIENTS, "probe": notes.PROBE,
            "memorization": notes.MEMORIZATION,
        }  # fmt: skip
        if trained.best_epoch is None:
            self.notes["best"] = notes.NO_BEST
        if not trained.noisy.any():
            self.notes["noise"] = notes.no_noise(config.data.noise.kind)

    def predictions(self, checkpoint: str, model: Classifier) -> None:
        """Entropy, likelihood, calibration and the probe bound on test pictures."""
        found = self._part(checkpoint)
        y = self.test.true[self.test_index]
        labels = y.cpu().numpy()
        for kind, seen in observe(model, self.test, self.test_index, y, self.config, purpose="analyze test").items():
            found.mean(f"{kind}/entropy", entropy.entropy(seen.probs))
            found.mean(f"{kind}/nll", calibration.nll(seen.log_probs, labels))
            found.mean(f"{kind}/brier", calibration.brier(seen.probs, labels))
            bins = self.config.analyze.ece_bins
            found.numbers[f"{kind}/ece"] = calibration.ece(seen.probs, labels, bins)
            for row in calibration.reliability_table(seen.probs, labels, bins):
                self.tables["calibration"].append({"checkpoint": checkpoint, "input": kind, **row})
            self._probe(found, kind, seen, labels)

    def training(self, checkpoint: str, model: Classifier) -> None:
        """Memorisation at the checkpoint's epoch, and last-layer gradient norms of training pictures."""
        found, index, trained = self._part(checkpoint), self.train_index, self.trained
        found.numbers |= memorization.at_epoch(trained.history, cast(int, trained.epoch_of(checkpoint)))
        targets = trained.targets if checkpoint == "last" else np.eye(trained.targets.shape[1])[trained.given]
        self.notes[f"gradient/{checkpoint}"] = notes.GRADIENT_TARGETS[checkpoint]
        chosen = torch.from_numpy(index).to(self.train.given.device)
        seen = observe(model, self.train, chosen, self.train.given[chosen], self.config, purpose="analyze train")
        noisy, norms = trained.noisy[index], {}
        for kind, part in seen.items():
            norms[kind] = gradients.last_layer_norms(part.probs, targets[index], part.features)
            _compare(found, f"gradient/{kind}", norms[kind], noisy)
        for place, example in enumerate(index.tolist()):
            row = {"index": example, "noisy": int(noisy[place]), "checkpoint": checkpoint}
            self.tables["gradients"].append(row | {kind: float(norms[kind][place]) for kind in INPUTS})

    def run(self) -> None:
        """What the targets after the last epoch, over all training examples, say of the true labels."""
        found, trained = self._part("run"), self.trained
        recovered, corrupted = memorization.recovery(trained.targets, trained.given, trained.true)
        found.mean("targets/entropy", entropy.entropy(trained.targets))
        found.mean("targets/recovered", recovered)
        found.mean("targets/corrupted", corrupted)
        found.mean("targets/brier", calibration.brier(trained.targets, trained.true))
        found.numbers["targets/ece"] = calibration.ece(trained.targets, trained.true, self.config.analyze.ece_bins)
        with np.errstate(divide="ignore"):
            surprise = calibration.nll(np.log(trained.targets), trained.true)
        if np.isfinite(surprise).all():
            found.mean("targets/nll", surprise)
        else:
            self.notes["targets/nll"] = notes.INFINITE_NLL
        for name, labels in (("targets", trained.targets.argmax(1)), ("given", trained.given)):
            table = entropy.contingency(labels, trained.true, trained.targets.shape[1])
            found.numbers[f"{name}/information"] = entropy.mutual_information(table)
            self.notes[f"{name}/information"] = notes.information_bias(name, entropy.mutual_information_bias(table))
        found.numbers["labels/entropy"] = entropy.label_entropy(self.test.true[self.test_index].cpu().numpy())

    def result(self) -> dict[str, Any]:
        """Everything found, as plain values."""
        return {
            **{name: part.numbers for name, part in self.parts.items()},
            "interval": {name: part.intervals for name, part in self.parts.items()},
            "n_examples": {
                "test": len(self.test_index),
                "train": len(self.train_index),
                "train_noisy": int(self.trained.noisy[self.train_index].sum()),
                "targets": len(self.trained.given),
                "targets_noisy": int(self.trained.noisy.sum()),
            },
            "notes": self.notes,
            "tables": self.tables,
        }

    def _probe(self, found: Findings, kind: str, seen: Activations, labels: Integers) -> None:
        probe = self.config.analyze.probe
        folds = numpy_stream(self.config.analyze.seed, "probe folds")
        try:
            bound = probe_information(seen.features, labels, folds=probe.folds, l2=probe.l2, generator=folds)
        except TooFewExamplesError as error:
            self.notes["probe"] = notes.no_probe(str(error))
        else:
            found.mean(f"{kind}/information", bound.density)

    def _part(self, name: str) -> Findings:
        return self.parts.setdefault(name, Findings(self.config.analyze.seed))


def _compare(found: Findings, name: str, norms: Floats, noisy: NDArray[np.bool_]) -> None:
    """Means of noisy and clean examples, and the share of the sum that the noisy ones carry, where there are any."""
    found.mean(f"{name}/clean", norms[~noisy])
    if noisy.any():
        found.mean(f"{name}/noisy", norms[noisy])
        found.share(f"{name}/noisy_share", norms * noisy, norms)


def _at_most(config: Config, available: int) -> int:
    wanted = config.analyze.n_examples
    return available if wanted is None else min(wanted, available)
