"""Operations of a step, counted; and how its time grows with data, attack steps and classes."""

import argparse
import statistics

import numpy as np
import torch
from layout import seconds
from matrix import Counted
from step import Case, operations

from sglr import models


def counted(model: str = "resnet18") -> None:
    """GFLOP per image of a forward, a forward with backward to the image, and whole steps."""
    network = models.build(model, num_classes=10, shape=(3, 32, 32), generator_seed=0).eval().requires_grad_(False)
    x = torch.rand(2, 3, 32, 32)
    with Counted() as forward, torch.no_grad():
        network(x)
    with Counted() as gradient:
        torch.autograd.grad(network(x.requires_grad_()).sum(), x)
    asked = argparse.Namespace(model=model, batch=2, steps=1, workers=0)
    print(f"\n### Operations of {model} at 3x32x32, counted (a multiply-add is two)\n")
    print("| what | GFLOP an image |\n|---|---:|")
    rows = {"forward": forward.total, "forward and backward to the image": gradient.total}
    rows |= {f"step of {method}, PGD-10": operations(asked, method) for method in ("at", "sglr")}
    # Once an epoch, for each of 49,000 training images: its natural class, and its part of 1,000 attacked ones.
    # Each of these is predicted as it is (twice: before the attack is built, and beside it) and under attack.
    measured = forward.total + (3 * forward.total + 10 * gradient.total) / 49
    rows["measured after an epoch, validation on 1,000 of 50,000 by PGD-10"] = round(measured)
    for name, total in rows.items():
        print(f"| {name} | {total / 2 / 1e9:.3f} |")


def growth(device: torch.device, rounds: int, model: str = "small_cnn", batch: int = 100) -> None:
    """Seconds of an epoch of SGLR against examples, attack steps and classes, with fitted exponents."""
    print(f"\n### Seconds of an epoch, sglr, {model}, batch {batch}\n")
    print("| what grows | values | seconds, median | exponent | of the part that grows |\n|---|---|---|---:|---:|")
    base = {"n": 500, "steps": 10, "classes": 10}
    for key, values in (
        ("n", (1000, 2000, 4000, 8000)),
        ("steps", (5, 10, 20, 40)),
        ("classes", (10, 100, 1000, 10000)),
    ):
        cases = [_case(device, model, batch, **{**base, key: value}) for value in values]
        # In turns, so that what disturbs the machine disturbs all.
        measured = [[seconds(case, device) for case in cases] for _ in range(rounds + 1)][1:]
        found = [statistics.median(times) for times in zip(*measured, strict=True)]
        exponent = np.polyfit(np.log(values), np.log(found), 1)[0]
        # time = fixed + slope x value: what is left of a fixed part should grow with exponent 1.
        slope, fixed = np.polyfit(values, found, 1, w=1 / np.array(found))
        rest = np.array(found) - fixed
        growing = np.polyfit(np.log(values), np.log(rest), 1)[0] if slope > 0 and (rest > 0).all() else float("nan")
        shown = ", ".join(f"{value:.3g}" for value in found)
        print(f"| {key} | {', '.join(map(str, values))} | {shown} | {exponent:.2f} | {growing:.2f} |", flush=True)


def _case(device: torch.device, model: str, batch: int, *, n: int, steps: int, classes: int):
    asked = argparse.Namespace(model=model, batch=batch, steps=-(-n // (4 * batch)), workers=0)
    case = Case(asked, device, "sglr", "fp32", classes=classes, steps=steps)
    return lambda: [case.ours(number) for number in range(n // batch)]
