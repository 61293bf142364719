"""How long the trainings and evaluations of a study that are still to run take here, estimated."""

import contextlib
import dataclasses
import time
from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path

import torch
from torch import nn

from sglr.attacks import REGISTRY, attack_mode
from sglr.attacks.losses import named
from sglr.attacks.pgd import input_gradient
from sglr.config import Config
from sglr.doctor import space
from sglr.evaluation.sanity import sanity_passes
from sglr.evaluation.suite import KEPT
from sglr.models import build
from sglr.models.precision import full_precision
from sglr.training import Plan
from sglr.training.distributed import ALONE
from sglr.training.learner import Networks
from sglr.training.precision import computing, memory_format

# A gradient to the images is a forward and a backward pass. Learning takes one and a half of it; measurements
# after an epoch and the label policy's passes add the rest.
_LEARNING = 2.0
# Images at once, to begin with; more, up to a batch, while they take less than this many seconds.
_FEW, _LONG_ENOUGH = 8, 0.2


def of_trainings(config: Config, data: Path, device: torch.device, done: Collection[str] = ()) -> float:
    """Seconds that the trainings, warm-ups among them, take one after another in one process.

    data: the folder of the prepared data, or where it will be; done: names of the items that need not run, such as
    "train@at-0". Times an attack step of the network, in the precision and with the threads of the config but not
    compiled.

    FileError when the data is damaged, ConfigError when the model does not fit its images.
    """
    gradients, images = _gradients(config, done), space.expected(config, data)
    if not gradients:
        return 0.0
    plan = Plan.training(config, config.methods[config.experiment.methods[0]], 0)
    plan = dataclasses.replace(plan, compile="never")
    layout = memory_format(plan.precision, device)
    with _threads(config), computing(plan.precision, device):
        model = _model(config, images, device).to(memory_format=layout)
        networks = Networks.of(plan, model, device, ALONE)
        with attack_mode(model, plan.attack_bn):
            gradient = _gradient(networks.attacked, images, min(plan.batch_size, images.examples), device, layout)
    return images.examples * gradients * gradient


def of_evaluations(config: Config, data: Path, device: torch.device, done: Collection[str] = ()) -> float | None:
    """Seconds that the evaluations and their audit take at most: were no example ever broken, and not compiled.

    None where an attack does not tell its passes. The rest as ``of_trainings``.
    """
    images, methods = space.expected(config, data), config.experiment.methods
    passes = _passes(config, images)
    if passes is None:
        return None
    items = [f"{method}-{seed}" for method in methods for seed in config.experiment.seeds]
    checkpoints = 2 if config.data.validation_size else 1  # without validation there is no best
    left = checkpoints * sum(f"evaluate@{item}" not in done for item in items)
    total = {examples: left * each for examples, each in passes.items() if left}
    if "audit" not in done:
        # Shows each model the images as they are, and those of all methods.
        shown = min(KEPT, config.evaluate.examples(images.test_examples))
        total[shown] = total.get(shown, 0.0) + checkpoints * len(items) * (1 + len(methods))
    if not any(total.values()):
        return 0.0
    with _threads(config), full_precision():
        model, seconds = _model(config, images, device).eval(), 0.0
        for examples, each in total.items():
            size = min(config.evaluate.batch_size, examples)
            seconds += examples * each * _gradient(model, images, size, device, torch.contiguous_format) / 2
    return seconds


def _passes(config: Config, images: space.ExpectedData) -> dict[int, float] | None:
    """Number of test examples -> forward and backward passes on each, of all attacks, the sweep and the checks that are
    run on so many of one model, if nothing is ever broken."""
    section, there = config.evaluate, images.test_examples
    total: dict[int, float] = defaultdict(float)
    for options in section.attacks.values():
        passes = options.passes(images.classes)
        if passes is None:
            return None
        total[section.examples(there, options)] += sum(passes)
    if section.sweep is not None:
        radius = REGISTRY.options("pgd", steps=section.sweep.steps)
        total[section.examples(there)] += len(section.sweep.eps_255) * sum(radius.passes(images.classes))
    if section.sanity is not None:
        total[section.examples(there, section.sanity)] += sum(sanity_passes(section.sanity.steps))
    return total


@contextlib.contextmanager
def _threads(config: Config) -> Iterator[None]:
    """Within the block torch has the config's threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(config.experiment.threads)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _gradients(config: Config, done: Collection[str]) -> float:
    """How many times networks are run forward and backward for a training example, in all that is not done."""
    steps = config.train.attack.steps
    continues, total = config.warmup.objective == "adversarial", 0.0
    for seed in config.experiment.seeds:
        if f"warmup@{seed}" not in done:
            total += config.warmup.epochs * (_LEARNING + (steps if continues else 0))
        for name in config.experiment.methods:
            method = config.methods[name].for_seed(seed)
            shared = config.warmup.epochs if continues and method.start == "warmup" else 0
            if f"train@{name}-{seed}" not in done:
                attack = method.objective.build().gradients_for_attack(steps)
                total += (config.train.epochs - shared) * (_LEARNING + (steps if attack is None else attack))
    return total


def _model(config: Config, images: space.ExpectedData, device: torch.device) -> nn.Module:
    return build(config.model, num_classes=images.classes, shape=images.shape, generator_seed=0).to(device)


def _gradient(
    network: nn.Module, images: space.ExpectedData, batch: int, device: torch.device, layout: torch.memory_format
) -> float:
    """Seconds of one attack step per image, in batches of at most ``batch``."""
    loss = named("ce")

    def seconds(size: int) -> float:
        x = torch.rand(size, *images.shape, device=device).contiguous(memory_format=layout)
        y = torch.zeros(size, dtype=torch.long, device=device)
        begun = time.perf_counter()
        float(input_gradient(network, x, y, loss).sum())  # waits for the device
        return time.perf_counter() - begun

    size = min(_FEW, batch)
    seconds(size)
    while (taken := min(seconds(size) for _ in range(2))) < _LONG_ENOUGH and size < batch:
        size = min(2 * size, batch)
    return taken / size
