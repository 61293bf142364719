"""Whole short trainings of a ResNet, timed and attacked: `python benchmarks/training.py FILE.npz`.

The file is one that the data source `npz` reads (data/README.md). Methods and precisions beside each other, one
eager in float32: what is fast must end as robust. Seconds of an epoch are the median of all but the first two, with
what is measured after it; the last column is the time that 200 epochs of 49,000 images would take at that rate, where
validation, on 1,000 images whatever the number of the others, is counted once an epoch.
"""

import argparse
import itertools
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from layout import ROOT, head
from layout import seconds as time_of

from sglr import models
from sglr.attacks.pgd import PgdOptions
from sglr.config import Config, parse
from sglr.config.reader import validate
from sglr.config.sections import Data
from sglr.data import Split, open_folder, prepare
from sglr.evaluation.measurement import Measurement
from sglr.evaluation.statistics import wilson
from sglr.models.precision import full_precision
from sglr.training import Hooks, Plan, fit
from sglr.training.history import measure
from sglr.training.precision import monitoring

CASES = ("sglr,bf16,always", "sglr,fp32,never", "at,bf16,always")
ATTACK = {"steps": 10, "step_size_255": 2.0, "random_start": True}
VALIDATION, CHUNK, EPOCHS, IMAGES = 1000, 500, 200, 49_000
COLUMNS = (
    "method, precision, compile", "first epoch, s", "an epoch, s", "images a second", "validation PGD-10, last",
    "test natural, last", "test PGD-20, last", "minutes of 200 epochs of 49,000",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--examples", type=int, help="for training; default: all but those for validation")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--cases", nargs="*", default=CASES, metavar="METHOD,PRECISION,COMPILE")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    device = torch.device(asked.device)
    print(head(asked.threads, device))
    splits = read(asked, device)
    print(f"\n{asked.model}, {asked.epochs} epochs of {len(splits[0])} images, batch {asked.batch}.\n")
    print(f"| {' | '.join(COLUMNS)} |\n|---|{'---:|' * (len(COLUMNS) - 1)}", flush=True)
    for case in asked.cases:
        method, precision, compiled = case.split(",")
        row(asked, splits, device, method, {"precision": precision, "compile": compiled})


def read(asked: argparse.Namespace, device: torch.device) -> list[Split]:
    """Training, validation and test split, cut as the stage `prepare` does."""
    values = {
        **{"source": {"name": "npz", "path": str(asked.data)}, "train_size": asked.examples, "split_seed": 0},
        **{"validation_size": VALIDATION, "noise": {"kind": "none", "rate": 0.0, "seed": 0}, "noise_per_seed": False},
        "augment": {"crop_padding": 0, "flip": False},
    }
    with tempfile.TemporaryDirectory() as folder:
        prepare(Data.model_validate(values), folder)
        data = open_folder(folder)
        return [data.train(0, device), data.validation(0, device), data.test(device)]


def row(
    asked: argparse.Namespace, splits: list[Split], device: torch.device, method: str, train: dict[str, object]
) -> None:
    """Train once, attack the last weights, print the row."""
    config = _config(asked, train)
    shape = splits[0].x.shape[1:]
    classes = int(max(split.true.max() for split in splits)) + 1
    model = models.build(asked.model, num_classes=classes, shape=shape, generator_seed=0).to(device)
    plan = Plan.training(config, config.methods[method], 0)
    ends = [time.perf_counter()]

    def note(row: dict[str, Any]) -> None:
        """Said at once, for a GPU that is there for minutes."""
        ends.append(time.perf_counter())
        said = f"{ends[-1] - ends[-2]:.2f} s, loss {row['train/loss']:.3f}, validation {100 * row['val/pgd']:.1f}"
        print(f"{method}, epoch {row['epoch']}: {said}", file=sys.stderr, flush=True)

    found = fit(plan, model, *splits[:2], hooks=Hooks(on_epoch=note))
    seconds = [after - before for before, after in itertools.pairwise(ends)]
    typical = statistics.median(seconds[2:] or seconds)
    model.load_state_dict(found.last)
    # As a checkpoint is when it is evaluated: in bfloat16 a GPU trains it channels last.
    model.eval().to(memory_format=torch.contiguous_format)
    test, robust = splits[2], PgdOptions(name="pgd", steps=20)
    with full_precision():
        natural, attacked = (
            Measurement(model, test.images(), test.true, options, plan.threat, 0, CHUNK).whole().correct
            for options in (None, robust)
        )
    few = Split(*(part[:1] for part in (splits[0].x, splits[0].given, splits[0].true)))
    labels = torch.nn.functional.one_hot(few.given, classes).float()
    with monitoring(plan.precision, device):
        times = [time_of(lambda: measure(plan, model, labels, few, splits[1], 1, None), device) for _ in range(3)]
    rate, validating = len(splits[0]) / typical, min(times)
    whole = EPOCHS * ((typical - validating) * IMAGES / len(splits[0]) + validating)
    cells = (
        ", ".join((method, *map(str, train.values()))), f"{seconds[0]:.1f}", f"{typical:.2f}", f"{rate:,.0f}",
        f"{100 * found.history[-1]['val/pgd']:.1f}", _share(natural), _share(attacked), f"{whole / 60:.0f}",
    )  # fmt: skip
    print(f"| {' | '.join(cells)} |", flush=True)


def _config(asked: argparse.Namespace, train: dict[str, object]) -> Config:
    """The shipped params with the published attack on CIFAR-10, and refinement from the middle of training on."""
    values = parse((ROOT / "params.yaml").read_text())
    values["train"] |= {"epochs": asked.epochs, "batch_size": asked.batch, "keep_epochs": []} | train
    values["train"] |= {"schedule": {"name": "cosine"}, "attack": ATTACK}
    values["threat"] = {"norm": "linf", "eps_255": 8.0}
    values["data"]["augment"] = {"crop_padding": 4, "flip": True}
    values["methods"]["sglr"]["labels"]["start_epoch"] = max(1, asked.epochs // 2)
    return validate(values, "params.yaml")


def _share(correct: np.ndarray) -> str:
    low, high = wilson(int(correct.sum()), len(correct))
    return f"{100 * correct.mean():.1f} [{100 * low:.1f}, {100 * high:.1f}]"


if __name__ == "__main__":
    main()
