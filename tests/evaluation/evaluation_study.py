"""A prepared digits folder, a training folder with untrained models, and models by hand."""

from pathlib import Path

import torch
from torch import nn

from sglr import data, models
from sglr.config.reader import validate

CPU = torch.device("cpu")
ATTACKS = {"fgsm": "fgsm", "pgd3": {"name": "pgd", "steps": 3, "n_examples": 24}}


def make(params: dict, folder: Path, **evaluate):
    """Config, prepared data and training folder of a small suite on 40 digits in chunks of 16."""
    params["data"] |= {"source": {"name": "digits", "test_size": 100}, "train_size": 60, "validation_size": 20}
    params["model"] |= {"channels": [4, 8], "hidden": 16}
    params["train"]["batch_size"] = 60
    params["evaluate"] |= {
        "n_examples": 40,
        "batch_size": 16,
        "attacks": ATTACKS,
        "sweep": None,
        "sanity": None,
    } | evaluate
    config = validate(params)
    data.prepare(config.data, folder / "data")
    prepared = data.open_folder(folder / "data")
    description = {"num_classes": 10, "shape": prepared.shape}
    for seed, name in enumerate(("best", "last")):
        model = models.build(config.model, **description, generator_seed=seed)
        models.save(model, folder / "train" / name, models.spec(config.model, **description))
    return config, prepared, folder / "train"


class Output(nn.Module):
    """A linear model of flattened images whose logits go through a function."""

    def __init__(self, change=lambda logits: logits, classes: int = 10, inputs: int = 64) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, classes, generator=torch.Generator().manual_seed(0)))
        self.register_buffer("seen", torch.zeros(()))
        self.change = change

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.change((x.flatten(1) - 0.5) @ self.weight)
