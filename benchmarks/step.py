"""Time of a training step against the plain one of reference_step.py, in turns in one process, parity first.

    python benchmarks/step.py                             # the default experiment's step: small_cnn, 8x8, batch 100
    python benchmarks/step.py --model resnet18 --batch 16 --threads 2

One row per method and precision: median seconds a step, throughput, and the ratio of medians reference / ours, with
the range of the ratios of single rounds. `--profile FILE` writes torch's profile of ours as text.
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
import torch
from reference_step import Augmented, Reference, loader

from sglr import models
from sglr.config import load
from sglr.config.sections import Augment
from sglr.data import Split
from sglr.training.loop import fit  # noqa: F401 (imported so that its cost is not timed)
from sglr.training.plan import Plan
from sglr.training.step import Learner, take

ROOT = Path(__file__).parents[1]
SHAPES = {"small_cnn": (1, 8, 8)}
AUGMENT = {"small_cnn": (0, False)}
METHODS = {"at": "at", "sglr": "sglr"}


def main() -> None:
    asked = arguments()
    torch.set_num_threads(asked.threads)
    device = torch.device(asked.device)
    print(
        f"torch {torch.__version__}, Python {platform.python_version()}, {asked.threads} threads, {asked.device}"
        f"{'' if device.type == 'cpu' else ' ' + torch.cuda.get_device_name(device)}; {asked.model}, batch"
        f" {asked.batch}, {asked.rounds} rounds of {asked.steps} steps\n"
    )
    parity(asked, device)
    print("| method | precision | reference, s | ours, s | pictures/s | ratio | of single rounds |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for method in asked.methods.split(","):
        for precision in asked.precisions.split(","):
            row(asked, device, method, precision)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="small_cnn")
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1, help="of the reference's loader")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--methods", default="at,sglr")
    parser.add_argument("--precisions", default="fp32,bf16")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--profile", type=Path)
    return parser.parse_args()


class Case:
    """Both steps on the same data; ``random_start`` and augmentation off where results are to be compared."""

    def __init__(self, asked, device, method: str, precision: str, *, exact: bool = False) -> None:
        shape = SHAPES.get(asked.model, (3, 32, 32))
        padding, flip = (0, False) if exact else AUGMENT.get(asked.model, (4, True))
        n = asked.batch * asked.steps * 4
        generator = torch.Generator().manual_seed(0)
        pictures = torch.randint(0, 256, (n, *shape), generator=generator, dtype=torch.uint8)
        labels = torch.randint(0, 10, (n,), generator=generator)
        config = load(ROOT / "params.yaml")
        eps, size = (25.5, 6.375) if asked.model == "small_cnn" else (8.0, 2.0)
        section = config.train.model_copy(
            update={
                "batch_size": asked.batch,
                "precision": precision,
                "attack": config.train.attack.model_copy(
                    update={"steps": 10, "step_size_255": size, "random_start": not exact}
                ),
            }
        )
        config = config.model_copy(
            update={
                "train": section,
                "threat": config.threat.model_copy(update={"eps_255": eps}),
                "data": config.data.model_copy(update={"augment": Augment(crop_padding=padding, flip=flip)}),
            }
        )
        kind = {"num_classes": 10, "shape": shape, "generator_seed": 0}
        self.epoch = 50 if method == "sglr" else 1
        self.split = Split(*(values.to(device) for values in (pictures, labels, labels)))
        self.plan = Plan.training(config, config.methods[method], 0)
        dtype = torch.float64 if exact else torch.float32
        model, plain = (models.build(asked.model, **kind).to(device, dtype) for _ in range(2))
        self.learner = Learner.build(self.plan, model, self.split.given, 10)
        self.reference = Reference(
            plain, labels.to(device), 10, eps=eps / 255, step_size=size / 255,
            steps=10, random_start=not exact, alpha=0.9 if method == "sglr" else None,
        )  # fmt: skip
        for group in self.learner.optimizer.param_groups:
            group["lr"] = 0.1
        self.batch, self.device = asked.batch, device
        workers = 0 if exact else asked.workers
        self.batches = loader(Augmented(pictures.numpy(), labels.numpy(), padding, flip), asked.batch, workers)
        self.waiting = iter(self.batches)

    def ours(self, number: int = 0) -> torch.Tensor:
        start = number * self.batch % len(self.split)
        index = torch.arange(start, start + self.batch, device=self.device)
        split = self.split
        loss, _ = take(self.plan, self.learner, split.pictures(index), split.given[index], index, self.epoch, number)
        return loss

    def plain(self) -> float:
        try:
            x, y, index = next(self.waiting)
        except StopIteration:
            self.waiting = iter(self.batches)
            x, y, index = next(self.waiting)
        return self.reference.step(x.to(self.device), y.to(self.device), index.to(self.device))


def parity(asked, device) -> None:
    """One step from the same weights on the same batch in float64: loss and weights agree, but for rounding."""
    for method in asked.methods.split(","):
        case = Case(asked, device, method, "fp32", exact=True)
        x, y = case.split.pictures(slice(0, asked.batch)).double(), case.split.given[: asked.batch]
        index = torch.arange(asked.batch, device=device)
        case.reference.table = case.reference.table.double()
        plain = case.reference.step(x, y, index)
        ours, _ = take(case.plan, case.learner, x, y, index, case.epoch, 0)
        other = case.reference.model.state_dict()
        worst = max(float((value - other[name]).abs().max()) for name, value in case.learner.model.state_dict().items())
        print(
            f"parity in float64, {method}: loss {plain:.9f} and {ours:.9f}, largest difference of a weight {worst:.1e}"
        )
        # The table of refined labels is float32 in both.
        if abs(plain - float(ours)) > 1e-6 or worst > 1e-6:
            raise SystemExit("the two steps do not agree: nothing is timed.")
    print()


def row(asked, device, method: str, precision: str) -> None:
    case = Case(asked, device, method, precision)
    pairs = [
        (timed(lambda number: case.plain(), asked.steps, device), timed(case.ours, asked.steps, device))
        for _ in range(asked.rounds + 1)
    ][1:]
    plain, ours = (statistics.median(times) for times in zip(*pairs, strict=True))
    ratios = sorted(a / b for a, b in pairs)
    print(
        f"| {method} | {precision} | {plain:.4f} | {ours:.4f} | {asked.batch / ours:,.0f} | {plain / ours:.2f} |"
        f" {ratios[0]:.2f} to {ratios[-1]:.2f} |",
        flush=True,
    )
    if asked.profile:
        from torch.profiler import profile

        with profile() as found:
            case.ours()
        table = found.key_averages().table(sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=40)
        with asked.profile.open("a") as file:
            file.write(f"{asked.model}, batch {asked.batch}, {method}, {precision}\n{table}\n")


def timed(step: Callable[[int], object], steps: int, device: torch.device) -> float:
    """Seconds per step."""
    started = time.perf_counter()
    for number in range(steps):
        step(number)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - started) / steps


if __name__ == "__main__":
    main()
