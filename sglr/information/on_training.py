"""Analysis of a checkpoint on its training images: memorisation, gradients, label information, curvature."""

import math
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sglr import threat
from sglr.attacks import pgd
from sglr.data import batches
from sglr.files import FileError
from sglr.information import calibration, gradients, landscape, memorization, notes, weights_information
from sglr.information.activations import INPUTS, Activations, forward, observe
from sglr.information.checks import Floats
from sglr.information.example_gradients import cross_entropy_loss, example_gradients, objective_loss
from sglr.information.findings import Findings
from sglr.information.hessian import largest_eigenvalue
from sglr.information.label_information import decompose, density
from sglr.information.subject import Checkpoint, Subject
from sglr.labels import LabelPolicy
from sglr.models import Classifier
from sglr.objectives import soft_cross_entropy
from sglr.random import torch_stream


def training(
    subject: Subject, checkpoint: Checkpoint, model: Classifier, found: Findings,
    test_correct: dict[str, NDArray[np.bool_]],
) -> None:  # fmt: skip
    """Training images, natural and attacked away from their given label; test_correct: as ``predictions`` returns."""
    trained, index = subject.trained, subject.train_index
    # Without a warm-up nothing was measured at the start.
    measured = any(row.get("epoch") == checkpoint.epoch for row in trained.history)
    for name, value in (memorization.at_epoch(trained.history, checkpoint.epoch) if measured else {}).items():
        group = trained.noisy if name.startswith("noisy") else ~trained.noisy
        found.number(name, value, int(group.sum()))
    _label_information(subject, model, found)
    settings = subject.config.analyze
    # Those beyond the first of `index` are analysed through the last layer only.
    keep = max(settings.gradients.n_examples, settings.sharpness.n_examples if settings.sharpness else 0)
    chosen = torch.from_numpy(index).to(subject.train.given.device)
    labels = subject.train.given[chosen]
    seen = observe(model, subject.train, chosen, labels, subject.config, purpose="analyze train", keep=keep)
    for kind, part in seen.items():
        found.difference(f"gap/{kind}", part.probs.argmax(1) == labels.cpu().numpy(), test_correct[kind])
    policy = subject.labels(checkpoint)
    targets = policy.current(checkpoint.epoch, chosen)
    _last_layer(subject, checkpoint, found, seen, targets.cpu().numpy())
    _all_weights(subject, checkpoint, model, found, seen, targets, policy)
    if settings.sharpness:
        _sharpness(subject, checkpoint, model, found, seen, targets)


def _label_information(subject: Subject, model: Classifier, found: Findings) -> None:
    """The bound on I(w; y | x) / n, on natural images with the given labels, all of them."""
    if subject.noise_entropy is None:
        return
    train, size = subject.train, subject.config.analyze.batch_size
    nll = [
        calibration.nll(forward(model, train.images(part)).log_probs, train.given[part].cpu().numpy())
        for part in batches(len(train), size)
    ]
    costs = np.concatenate(nll)
    terms = decompose(costs, subject.noise_entropy)
    found.mean("label_information/bound", density(costs, subject.noise_entropy))
    found.mean("label_information/cross_entropy", costs)
    found.number("label_information/noise_entropy", terms.noise_entropy, len(costs))
    found.number("label_information/divergence_low", terms.divergence[0], len(costs))


def _last_layer(
    subject: Subject, checkpoint: Checkpoint, found: Findings, seen: dict[str, Activations], targets: Floats
) -> None:
    noisy = subject.trained.noisy[subject.train_index]
    norms = {kind: gradients.last_layer_norms(part.probs, targets, part.features) for kind, part in seen.items()}
    for kind, values in norms.items():
        _compare(found, f"gradient/{kind}", values, noisy)
    for place, example in enumerate(subject.train_index.tolist()):
        row = {"index": example, "noisy": int(noisy[place])} | {kind: float(norms[kind][place]) for kind in INPUTS}
        subject.add("gradients", checkpoint, **row)


def _all_weights(
    subject: Subject, checkpoint: Checkpoint, model: Classifier, found: Findings, seen: dict[str, Activations],
    targets: Tensor, policy: LabelPolicy,
) -> None:  # fmt: skip
    """Norms over all weights, of cross-entropy and of the method's own loss, and the information in the weights."""
    settings = subject.config.analyze.gradients
    n = min(settings.n_examples, len(targets))
    noisy = subject.trained.noisy[subject.train_index[:n]]
    soft = targets[:n].float()
    index = torch.from_numpy(subject.train_index[:n]).to(soft.device)
    given = subject.train.given[index]
    x, x_adv = (seen[kind].images[:n] for kind in INPUTS)
    for kind, images in (("natural", x), ("adversarial", x_adv)):
        norms = example_gradients(model, cross_entropy_loss, (images, soft), chunk=settings.chunk).norms
        _compare(found, f"full_gradient/{kind}", norms, noisy)
    objective = subject.config.methods[subject.method].objective.build()
    weights = policy.example_weights(checkpoint.epoch, index)
    inputs = (x, x_adv, soft, given, torch.ones(n, device=x.device) if weights is None else weights, index)
    loss = objective_loss(objective, partial(policy.penalty, checkpoint.epoch))
    _compare(
        found, "full_gradient/objective", example_gradients(model, loss, inputs, chunk=settings.chunk).norms, noisy
    )
    start = subject.start
    if start is None:
        subject.notes["weights"] = notes.NO_START
        return
    try:
        along = weights_information.difference(model, start.load(x.device))
    except ValueError as error:
        begun = start.path if start.untrained is None else "initial weights"
        raise FileError(f"{checkpoint.path} does not continue {begun}: {error}.") from None
    found.number("weights/distance", weights_information.length(along), 1)
    hard = torch.eye(soft.shape[1], device=soft.device)[given]
    projections = example_gradients(
        model, cross_entropy_loss, (x, hard), chunk=settings.chunk, direction=along
    ).projections
    for layer, values in weights_information.information(projections, len(subject.train)).items():
        part = Findings(subject.config.analyze.seed)
        part.mean(f"weights/{layer}", values)
        for row in part.rows():
            row.pop("quantity")
            subject.add("weights", checkpoint, layer=layer, **row)
        if layer == weights_information.TOTAL:
            found.mean("weights/information", values)


def _sharpness(
    subject: Subject, checkpoint: Checkpoint, model: Classifier, found: Findings, seen: dict[str, Activations],
    targets: Tensor,
) -> None:  # fmt: skip
    settings, analyze, config = subject.config.analyze.sharpness, subject.config.analyze, subject.config
    assert settings is not None
    n = min(settings.n_examples, len(targets))
    soft, device = targets[:n].float(), targets.device
    for kind in INPUTS:
        stream = torch_stream(analyze.seed, "curvature", device=device)
        curved = largest_eigenvalue(
            model, seen[kind].images[:n], soft, iterations=settings.iterations, chunk=analyze.batch_size,
            generator=stream,
        )  # fmt: skip
        found.mean(f"sharpness/{kind}", curved.contributions)
        if not curved.converged:
            subject.notes["sharpness/converged"] = notes.not_converged(settings.iterations)
    along = landscape.direction(model, torch_stream(analyze.seed, "landscape", device=device))
    radii = np.linspace(-settings.radius, settings.radius, settings.points).tolist()
    x = seen["natural"].images[:n]
    given = subject.train.given[torch.from_numpy(subject.train_index[:n]).to(device)]
    ball = threat.of(config.threat)

    def losses(moved: nn.Module, attacked: bool) -> Floats:
        found = []
        for number, (part, y, wanted) in enumerate(
            zip(*(each.split(analyze.batch_size) for each in (x, given, soft)), strict=True)
        ):
            images = part
            if attacked:
                images = pgd(
                    moved, part, y, threat=ball, steps=analyze.attack.steps,
                    step_size=analyze.attack.step_size(ball.eps), random_start=analyze.attack.random_start,
                    generator=torch_stream(analyze.seed, "landscape attack", step=number, device=device),
                )  # fmt: skip
            with torch.no_grad():
                found.append(soft_cross_entropy(moved(images), wanted).double().cpu().numpy())
        return np.concatenate(found)

    for kind in INPUTS:
        values = landscape.walk(model, along, radii, partial(losses, attacked=kind == "adversarial"))
        for radius, value in zip(radii, values, strict=True):
            row = {"input": kind, "radius": radius, "n": n}
            mean = float(value.mean())
            subject.add("landscape", checkpoint, **row, loss=mean if math.isfinite(mean) else None)


def _compare(found: Findings, name: str, norms: Floats, noisy: NDArray[np.bool_]) -> None:
    """Means of noisy and clean examples, and the share of the sum that the noisy ones carry, where there are any."""
    found.mean(f"{name}/clean", norms[~noisy])
    if noisy.any():
        found.mean(f"{name}/noisy", norms[noisy])
        found.share(f"{name}/noisy_share", norms * noisy, norms)
