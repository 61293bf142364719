"""Analysis of a checkpoint on test images: entropies, scores, calibration, and information in its features."""

import numpy as np
import torch
from numpy.typing import NDArray

from sglr.information import calibration, notes, temperature
from sglr.information.activations import Activations, forward, joined, observe
from sglr.information.analyzed_run import AnalyzedRun, Checkpoint
from sglr.information.checks import Integers
from sglr.information.entropy import entropy
from sglr.information.findings import Findings
from sglr.information.index_information import index_information
from sglr.information.probe import TooFewExamplesError, probe_information
from sglr.models import Classifier
from sglr.random import numpy_stream


def predictions(
    run: AnalyzedRun, checkpoint: Checkpoint, model: Classifier, findings: Findings
) -> dict[str, NDArray[np.bool_]]:
    """Test images, natural and attacked away from their true label; which of them are correct (N,), by input.

    Their information is measured under an attack away from the network's own natural prediction, too: such images do
    not depend on the true label but through the natural ones.
    """
    settings = run.config.analyze
    y = run.test.true[run.test_index]
    labels = y.cpu().numpy()
    fitted = _temperature(run, model, findings)
    seen = observe(model, run.test, run.test_index, y, run.config, purpose="analyze test")
    correct = {}
    for kind, part in seen.items():
        correct[kind] = part.probs.argmax(1) == labels
        findings.mean(f"{kind}/accuracy", correct[kind])
        findings.mean(f"{kind}/entropy", entropy(part.probs))
        findings.mean(f"{kind}/nll", calibration.nll(part.log_probs, labels))
        findings.mean(f"{kind}/brier", calibration.brier(part.probs, labels))
        scalings = {"": part.log_probs}
        if fitted is not None:
            scalings["_scaled"] = temperature.scaled(part.log_probs, fitted)
            findings.mean(f"{kind}/nll_scaled", calibration.nll(scalings["_scaled"], labels))
        for suffix, logs in scalings.items():
            probs = np.exp(logs)
            findings.ece(f"{kind}/ece{suffix}", probs, labels, settings.ece_bins)
            for row in calibration.reliability_table(probs, labels, settings.ece_bins):
                run.add("calibration", checkpoint, input=kind, scaled=int(bool(suffix)), **row)
        _probe(run, findings, f"{kind}/information", part, labels)
        _index(run, checkpoint, findings, kind, part)
    own = torch.from_numpy(seen["natural"].log_probs.argmax(1)).to(y.device)
    unaware = observe(model, run.test, run.test_index, own, run.config, purpose="analyze test")["adversarial"]
    _probe(run, findings, "adversarial/information_without_label", unaware, labels)
    return correct


def _temperature(run: AnalyzedRun, model: Classifier, findings: Findings) -> float | None:
    """The temperature that suits the natural validation images best; None without a validation split."""
    validation, size = run.validation, run.config.analyze.batch_size
    if len(validation) == 0:
        run.notes["temperature"] = notes.NO_TEMPERATURE
        return None
    index = torch.arange(len(validation), device=validation.given.device)
    seen = joined([forward(model, validation.images(part)) for part in index.split(size)])
    fitted = temperature.fit(seen.log_probs, validation.given.cpu().numpy())
    findings.number("temperature", fitted.value, len(validation))
    if fitted.at_bound:
        run.notes["temperature"] = notes.TEMPERATURE_AT_BOUND
    return fitted.value


def _probe(run: AnalyzedRun, findings: Findings, name: str, seen: Activations, labels: Integers) -> None:
    """I(T; Y) by the cross-fitted probe."""
    settings = run.config.analyze
    folds = numpy_stream(settings.seed, "probe folds")
    try:
        bound = probe_information(
            seen.features, labels, folds=settings.probe.folds, l2=settings.probe.l2, generator=folds
        )
    except TooFewExamplesError as error:
        run.notes["probe"] = notes.no_probe(str(error))
    else:
        findings.mean(name, bound.density)


def _index(run: AnalyzedRun, checkpoint: Checkpoint, findings: Findings, kind: str, seen: Activations) -> None:
    """I(index; T) by pairwise bounds with the noise swept."""
    settings = run.config.analyze
    if len(seen.features) < 2:
        run.notes["index_information"] = notes.NO_INDEX
        return
    middle = sorted(settings.index_noise)[len(settings.index_noise) // 2]
    for level in index_information(seen.features, settings.index_noise, chunk=settings.batch_size):
        row = {"input": kind, "noise": level.noise, "deviation": level.deviation, "n": len(seen.features)}
        row |= {"lower": level.lower, "upper": level.upper, "most": float(np.log(len(seen.features)))}
        run.add("index_information", checkpoint, **row, saturated=int(level.saturated))
        if level.noise == middle:
            findings.mean(f"{kind}/index_information/lower", level.lower_contributions)
            findings.mean(f"{kind}/index_information/upper", level.upper_contributions)
            if level.saturated:
                run.notes["index_information/saturated"] = notes.SATURATED
