"""How long the trainings of a study take here, estimated before they start."""

import dataclasses
import time
from pathlib import Path

import torch

from sglr import config, space
from sglr.attacks import attack_mode
from sglr.attacks.losses import named
from sglr.attacks.pgd import input_gradient
from sglr.models import build
from sglr.training import Plan
from sglr.training.distributed import ALONE
from sglr.training.precision import computing, memory_format
from sglr.training.step import Networks

# A gradient to the images is a forward and a backward pass. Learning takes one and a half of it; measurements
# after an epoch and the label policy's passes add the rest.
_LEARNING = 2.0
# Images at once, to begin with; more, up to a batch, while they take less than this many seconds.
_FEW, _LONG_ENOUGH = 8, 0.2


def of_study(settings: config.Config, data: Path, device: torch.device) -> float:
    """Seconds that all trainings, warm-ups among them, take one after another in one process.

    data: the folder of the prepared data, or where it will be. Times an attack step of the network, in the precision
    and with the threads of the settings but not compiled; evaluation and analysis are not counted.

    FileError when the data is damaged, ConfigError when the model does not fit its images.
    """
    images = space.expected(settings, data)
    gradients = len(settings.experiment.seeds) * _gradients(settings)
    threads = torch.get_num_threads()
    torch.set_num_threads(settings.experiment.threads)
    try:
        return images.examples * gradients * _gradient(settings, images, device)
    finally:
        torch.set_num_threads(threads)


def _gradients(settings: config.Config) -> float:
    """How many times the network is run forward and backward for each training example, for one seed."""
    attacked = settings.train.attack.steps + _LEARNING
    continues = settings.warmup.objective == "adversarial"
    total = settings.warmup.epochs * (attacked if continues else _LEARNING)
    for name in settings.experiment.methods:
        method = settings.methods[name]
        shared = settings.warmup.epochs if continues and method.start == "warmup" else 0
        each = attacked if method.objective.build().attacks else _LEARNING
        total += (settings.train.epochs - shared) * each
    return total


def _gradient(settings: config.Config, images: space.TrainingSet, device: torch.device) -> float:
    """Seconds of one attack step per image."""
    method = settings.methods[settings.experiment.methods[0]]
    plan = dataclasses.replace(Plan.training(settings, method, 0), compile="never")
    model = build(settings.model, num_classes=images.classes, shape=images.shape, generator_seed=0).to(device)
    layout = memory_format(plan.precision, device)
    networks = Networks.of(plan, model.to(memory_format=layout), device, ALONE)
    loss, batch = named("ce"), min(plan.batch_size, images.examples)

    def seconds(size: int) -> float:
        x = torch.rand(size, *images.shape, device=device).contiguous(memory_format=layout)
        y = torch.zeros(size, dtype=torch.long, device=device)
        begun = time.perf_counter()
        float(input_gradient(networks.attacked, x, y, loss).sum())  # waits for the device
        return time.perf_counter() - begun

    with computing(plan.precision, device), attack_mode(model, plan.attack_bn):
        size = min(_FEW, batch)
        seconds(size)
        while (taken := min(seconds(size) for _ in range(2))) < _LONG_ENOUGH and size < batch:
            size = min(2 * size, batch)
    return taken / size
