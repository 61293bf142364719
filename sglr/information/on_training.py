"""Analysis of a checkpoint on its training images: memorisation, gradients, label information, curvature."""

import contextlib
import copy
import math
from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from sglr import threat
from sglr.attacks import pgd
from sglr.data import batches
from sglr.files import FileError
from sglr.information import calibration, gradients, landscape, memorization, notes, weights_information
from sglr.information.activations import INPUTS, Activations, forward, observe
from sglr.information.analyzed_run import AnalyzedRun, Checkpoint
from sglr.information.checks import Floats
from sglr.information.example_gradients import cross_entropy_loss, example_gradients, objective_loss
from sglr.information.findings import Findings
from sglr.information.hessian import InfiniteError, largest_eigenvalue
from sglr.information.label_information import density
from sglr.labels import LabelPolicy
from sglr.models import Classifier
from sglr.objectives import soft_cross_entropy
from sglr.random import derive, seeded, torch_stream

# Words of torch's errors where an operation has no second derivative, or none in forward mode.
_NO_DERIVATIVE = ("not implemented", "does not support", "not yet implemented")


def training(
    run: AnalyzedRun, checkpoint: Checkpoint, model: Classifier, findings: Findings,
    test_correct: dict[str, NDArray[np.bool_]],
) -> None:  # fmt: skip
    """Training images, natural and attacked away from their given label; test_correct: as ``predictions`` returns."""
    trained, index = run.trained, run.train_index
    # Without a warm-up nothing was measured at the start.
    measured = any(row.get("epoch") == checkpoint.epoch for row in trained.history)
    for name, value in (memorization.at_epoch(trained.history, checkpoint.epoch) if measured else {}).items():
        group = trained.noisy if name.startswith("noisy") else ~trained.noisy
        findings.number(name, value, int(group.sum()))
    _label_information(run, model, findings)
    settings = run.config.analyze
    # Those beyond the first of `index` are analysed through the last layer only.
    keep = max(settings.gradients.n_examples, settings.sharpness.n_examples if settings.sharpness else 0)
    chosen = torch.from_numpy(index).to(run.train.given.device)
    labels = run.train.given[chosen]
    seen = observe(model, run.train, chosen, labels, run.config, purpose="analyze train", keep=keep)
    clean = ~trained.noisy[index]
    for kind, part in seen.items():
        correct = part.probs.argmax(1) == labels.cpu().numpy()
        findings.difference(f"gap/{kind}", correct, test_correct[kind])
        if clean.any() and not clean.all():
            findings.difference(f"gap/{kind}/clean", correct[clean], test_correct[kind])
    policy = run.labels(checkpoint)
    targets = policy.targets(checkpoint.epoch, chosen)
    _last_layer(run, checkpoint, findings, seen, targets.cpu().numpy())
    _gradient_norms(run, checkpoint, model, findings, seen, targets, policy)
    _weights_information(run, checkpoint, model, findings, seen)
    if settings.sharpness:
        with torch.no_grad():  # older weight_norm keeps what it made for the last forward, which copies only so
            model(seen["natural"].images[:1])
        try:
            # On a copy: derivatives of derivatives leave their tensors in layers with hooks of their own.
            with _differentiable_twice():
                _eigenvalues(run, copy.deepcopy(model), findings, seen, targets)
        except InfiniteError:
            run.notes["sharpness/finite"] = notes.INFINITE_CURVATURE
        except RuntimeError as error:
            if not any(words in str(error) for words in _NO_DERIVATIVE):
                raise
            run.notes["sharpness"] = notes.no_second_derivative(str(error))
        _landscape(run, checkpoint, model, seen, targets)


def _label_information(run: AnalyzedRun, model: Classifier, findings: Findings) -> None:
    """The bound on I(w; y | x) / n, on natural images with the given labels, all of them."""
    if run.noise_entropy is None:
        return
    train, size = run.train, run.config.analyze.batch_size
    nll = [
        calibration.nll(forward(model, train.images(part)).log_probs, train.given[part].cpu().numpy())
        for part in batches(len(train), size)
    ]
    costs = np.concatenate(nll)
    findings.mean("label_information/bound", density(costs, run.noise_entropy))
    findings.mean("label_information/cross_entropy", costs)
    findings.number("label_information/noise_entropy", run.noise_entropy, len(costs))


def _last_layer(
    run: AnalyzedRun, checkpoint: Checkpoint, findings: Findings, seen: dict[str, Activations], targets: Floats
) -> None:
    noisy = run.trained.noisy[run.train_index]
    norms = {kind: gradients.last_layer_norms(part.probs, targets, part.features) for kind, part in seen.items()}
    for kind, values in norms.items():
        _compare(findings, f"gradient/{kind}", values, noisy)
    given = np.eye(targets.shape[1])[run.train.given[torch.from_numpy(run.train_index)].cpu().numpy()]
    if not np.array_equal(targets, given):
        for kind, part in seen.items():
            against_given = gradients.last_layer_norms(part.probs, given, part.features)
            _compare(findings, f"gradient/{kind}/given", against_given, noisy)
    for place, example in enumerate(run.train_index.tolist()):
        row = {"index": example, "noisy": int(noisy[place])} | {kind: float(norms[kind][place]) for kind in INPUTS}
        run.add("gradients", checkpoint, **row)


def _gradient_norms(
    run: AnalyzedRun, checkpoint: Checkpoint, model: Classifier, findings: Findings, seen: dict[str, Activations],
    targets: Tensor, policy: LabelPolicy,
) -> None:  # fmt: skip
    """Norms over all weights, of cross-entropy and of the method's own loss."""
    settings = run.config.analyze.gradients
    n = min(settings.n_examples, len(targets))
    noisy = run.trained.noisy[run.train_index[:n]]
    soft = targets[:n].float()
    index = torch.from_numpy(run.train_index[:n]).to(soft.device)
    given = run.train.given[index]
    x, x_adv = (seen[kind].images[:n] for kind in INPUTS)
    for kind, images in (("natural", x), ("adversarial", x_adv)):
        norms = example_gradients(model, cross_entropy_loss, (images, soft), chunk=settings.chunk).norms
        _compare(findings, f"full_gradient/{kind}", norms, noisy)
    objective = run.chosen.objective.build()
    weights = policy.example_weights(checkpoint.epoch, index)
    inputs = (x, x_adv, soft, given, torch.ones(n, device=x.device) if weights is None else weights, index)
    loss = objective_loss(objective, partial(policy.penalty, checkpoint.epoch))
    with seeded(derive(run.config.analyze.seed, "objective"), x.device):  # for objectives that draw
        if objective.attacks:
            objective.attack_loss(model, x[:1])  # an objective may move a network of its own to the device there
        norms = example_gradients(model, loss, inputs, chunk=settings.chunk).norms
    _compare(findings, "full_gradient/objective", norms, noisy)


def _weights_information(
    run: AnalyzedRun, checkpoint: Checkpoint, model: Classifier, findings: Findings, seen: dict[str, Activations]
) -> None:
    """The way from the weights that training began with, and the information along it."""
    start, settings = run.start, run.config.analyze.gradients
    if start is None:
        run.notes["weights"] = notes.NO_START
        return
    try:
        along = weights_information.difference(model, start.load(run.train.given.device))
    except ValueError as error:
        begun = start.path if start.untrained is None else "initial weights"
        raise FileError(f"{checkpoint.path} does not continue {begun}: {error}.") from None
    findings.number("weights/distance", weights_information.length(along), 1)
    index = run.train_index[: settings.n_examples]
    given = run.train.given[torch.from_numpy(index).to(run.train.given.device)]
    hard = torch.eye(seen["natural"].probs.shape[1], device=given.device)[given]
    inputs = (seen["natural"].images[: len(index)], hard)
    projections = example_gradients(
        model, cross_entropy_loss, inputs, chunk=settings.chunk, direction=along
    ).projections
    for layer, values in weights_information.information(projections, len(run.train)).items():
        part = Findings(run.config.analyze.seed)
        part.mean(f"weights/{layer}", values)
        for row in part.rows():
            row.pop("quantity")
            run.add("weights", checkpoint, layer=layer, **row)
        if layer == weights_information.TOTAL:
            findings.mean("weights/information", values)


def _eigenvalues(
    run: AnalyzedRun, model: Classifier, findings: Findings, seen: dict[str, Activations], targets: Tensor
) -> None:
    """The largest eigenvalue of the Hessian of the cross-entropy with the training targets."""
    settings, analyze = run.config.analyze.sharpness, run.config.analyze
    assert settings is not None
    soft, found = targets[: settings.n_examples].float(), {}
    for kind in INPUTS:
        found[kind] = curved = largest_eigenvalue(
            model, seen[kind].images[: len(soft)], soft, iterations=settings.iterations, chunk=analyze.batch_size,
            generator=torch_stream(analyze.seed, "curvature", device=soft.device),
        )  # fmt: skip
        if not curved.converged:
            run.notes["sharpness/converged"] = notes.not_converged(settings.iterations)
    for kind, curved in found.items():
        findings.mean(f"sharpness/{kind}", curved.contributions)


@contextlib.contextmanager
def _differentiable_twice() -> Iterator[None]:
    """Within the block attention is computed by operations that have second derivatives; its faster forms have none."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _landscape(
    run: AnalyzedRun, checkpoint: Checkpoint, model: Classifier, seen: dict[str, Activations], targets: Tensor
) -> None:
    """The cross-entropy with the training targets along a random direction; attacks are made anew at each point."""
    settings, analyze, ball = run.config.analyze.sharpness, run.config.analyze, threat.of(run.config.threat)
    assert settings is not None
    soft, device = targets[: settings.n_examples].float(), targets.device
    along = landscape.direction(model, torch_stream(analyze.seed, "landscape", device=device))
    radii = np.linspace(-settings.radius, settings.radius, settings.points).tolist()
    radii[settings.points // 2] = 0.0  # the model itself, but for rounding
    given = run.train.given[torch.from_numpy(run.train_index[: len(soft)]).to(device)]
    examples = (seen["natural"].images[: len(soft)], given, soft)

    def losses(moved: nn.Module, attacked: bool) -> Floats:
        chunks = []
        for number, (x, y, wanted) in enumerate(
            zip(*(each.split(analyze.batch_size) for each in examples), strict=True)
        ):
            if attacked:
                x = pgd(
                    moved, x, y, threat=ball, steps=analyze.attack.steps,
                    step_size=analyze.attack.step_size(ball.eps), random_start=analyze.attack.random_start,
                    generator=torch_stream(analyze.seed, "landscape attack", step=number, device=device),
                )  # fmt: skip
            with torch.no_grad():
                chunks.append(soft_cross_entropy(moved(x), wanted).double().cpu().numpy())
        return np.concatenate(chunks)

    for kind in INPUTS:
        values = landscape.walk(model, along, radii, partial(losses, attacked=kind == "adversarial"))
        for radius, value in zip(radii, values, strict=True):
            mean = float(value.mean())
            row = {"input": kind, "radius": radius, "n": len(soft), "loss": mean if math.isfinite(mean) else None}
            run.add("landscape", checkpoint, **row)


def _compare(findings: Findings, name: str, norms: Floats, noisy: NDArray[np.bool_]) -> None:
    """Means of noisy and clean examples, and the share of the sum that the noisy ones carry, where there are any."""
    findings.mean(f"{name}/clean", norms[~noisy])
    if noisy.any():
        findings.mean(f"{name}/noisy", norms[noisy])
        findings.share(f"{name}/noisy_share", norms * noisy, norms)
