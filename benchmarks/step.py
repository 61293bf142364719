"""A training step against the plain one of reference_step.py, in turns in one process, parity first.

    python benchmarks/step.py                             # the default experiment's step: small_cnn, 8x8, batch 100
    python benchmarks/step.py --model resnet18 --batch 16 --threads 2
    python benchmarks/step.py --model small_cnn32 --batch 128   # the small network on 3x32x32

One row per method, precision and form of the reference. On a GPU float32 is float32 in the reference, too; forms that
end in "-tf32" have torch's defaults instead, which let convolutions use TF32. `--profile FILE` (or -) writes torch's
profile of ours as text.
"""

import argparse
import contextlib
from functools import cache
from pathlib import Path

from sglr import processes

processes.let_threads_sleep()
import torch
from layout import CLOCKS, ROOT, Table, apart, failed, forget_compiled, head, in_turns, require, reserved, use_clock
from matrix import Counted, rate
from reference_step import Augmented, Reference, loader

from sglr import models
from sglr.config import load
from sglr.config.sections import Augment
from sglr.data import Split
from sglr.models.precision import full_precision
from sglr.training.history import measure
from sglr.training.learner import Learner
from sglr.training.plan import Plan
from sglr.training.precision import monitoring
from sglr.training.step import take

# The default experiment's; all else has images of 3x32x32, cropped and mirrored.
DIGITS = "small_cnn"
NAMES = {"small_cnn32": "small_cnn"}
# With 0.1 networks diverge on random images until gradients are denormal numbers, on which a CPU takes twice as long.
LR = 0.01
TF32 = "-tf32"
REPLAYED = 3


def main() -> None:
    asked = arguments()
    torch.set_num_threads(asked.threads)
    use_clock(asked.clock)
    device = torch.device(asked.device)
    print(head(asked.threads, device))
    section(asked, device)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="small_cnn")
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1, help="of the reference's loader")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--methods", default="at,sglr")
    parser.add_argument("--precisions", default="fp32,bf16")
    parser.add_argument("--compile", default="never", help="never, always or both with a comma: ours eager, compiled")
    parser.add_argument("--references", default="grad,backward", help="forms of the reference's attack")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--profile", help="file to add a profile to, or - to print it")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: on a machine that others use")
    return parser.parse_args()


def section(asked: argparse.Namespace, device: torch.device) -> None:
    """Parity, then the table of one model and batch size."""
    print(f"\n{asked.model}, batch {asked.batch}, {asked.rounds} rounds of {asked.steps} steps.")
    for method in asked.methods.split(","):
        with apart(f"parity of {method}"):
            parity(asked, device, method)
    rates = {precision: rate(precision, device) for precision in asked.precisions.split(",")}
    said = ", ".join(f"{precision} {found / 1e12:.3g} TFLOP/s" for precision, found in rates.items())
    print(f"Measured rate of matrix products: {said}.")
    table = Table(f"Training step, {asked.model}, batch {asked.batch}")
    for method in asked.methods.split(","):
        for precision in asked.precisions.split(","):
            for compiled in asked.compile.split(","):
                row(table, asked, device, method, precision, compiled, rates[precision])
    for precision in asked.precisions.split(","):
        for compiled in asked.compile.split(","):
            if {"at", "sglr"} <= set(asked.methods.split(",")):
                with apart("sglr against at"):
                    extra(table, asked, device, precision, compiled)
            if not asked.profile:  # which is about the step, and each case is compiled anew
                with apart("what is measured after an epoch"):
                    measuring(table, asked, device, precision, compiled)


class Case:
    """Both steps on the same data; ``random_start`` and augmentation off where results are to be compared."""

    def __init__(
        self, asked, device, method: str, precision: str, *, exact: bool = False, compiled: str = "never",
        form: str = "grad", classes: int = 10, steps: int = 10,
    ) -> None:  # fmt: skip
        digits = asked.model == DIGITS
        shape = (1, 8, 8) if digits else (3, 32, 32)
        padding, flip = (0, False) if exact or digits else (4, True)
        n = asked.batch * asked.steps * 4
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (n, *shape), generator=generator, dtype=torch.uint8)
        labels = torch.randint(0, classes, (n,), generator=generator)
        config = load(ROOT / "params.yaml")
        eps, size = (25.5, 6.375) if digits else (8.0, 2.0)
        attack = {"steps": steps, "step_size_255": size, "random_start": not exact}
        changes = {"batch_size": asked.batch, "precision": precision, "compile": compiled}
        section = config.train.model_copy(update={**changes, "attack": config.train.attack.model_copy(update=attack)})
        config = config.model_copy(
            update={
                "train": section,
                "threat": config.threat.model_copy(update={"eps_255": eps}),
                "data": config.data.model_copy(update={"augment": Augment(crop_padding=padding, flip=flip)}),
            }
        )
        kind = {"num_classes": classes, "shape": shape, "generator_seed": 0}
        self.epoch = 50 if method == "sglr" else 1
        self.split = Split(*(values.to(device) for values in (images, labels, labels)))
        self.plan = Plan.training(config, config.methods[method], 0)
        dtype = torch.float64 if exact and precision == "fp32" else torch.float32
        model, plain = (models.build(NAMES.get(asked.model, asked.model), **kind).to(device, dtype) for _ in range(2))
        self.learner = Learner.build(self.plan, model, self.split.given, classes)
        self.reference = Reference(
            plain, labels.to(device), classes, eps=eps / 255, step_size=size / 255, steps=steps,
            random_start=not exact, alpha=0.9 if method == "sglr" else None, form=form.removesuffix(TF32), lr=LR,
        )  # fmt: skip
        self.tf32 = form.endswith(TF32)
        for group in self.learner.optimizer.param_groups:
            group["lr"] = LR
        self.batch, self.device = asked.batch, device
        workers = 0 if exact else asked.workers
        self.batches = loader(Augmented(images.numpy(), labels.numpy(), padding, flip), asked.batch, workers)
        self.waiting = iter(self.batches)

    def ours(self, number: int = 0) -> torch.Tensor:
        """One step of this project's; the loss, on the device."""
        start = number * self.batch % len(self.split)
        index = torch.arange(start, start + self.batch, device=self.device)
        split = self.split
        loss, *_ = take(self.plan, self.learner, split.images(index), split.given[index], index, self.epoch, number)
        return loss

    def reserved(self) -> float | None:
        """GB of a step of ours, once everything is compiled and recorded; None on a CPU."""
        if self.device.type == "cuda":
            for _ in range(REPLAYED):
                self.ours()
        return reserved(self.ours, self.device)

    def plain(self) -> float:
        """One step of the reference."""
        try:
            x, y, index = next(self.waiting)
        except StopIteration:
            self.waiting = iter(self.batches)
            x, y, index = next(self.waiting)
        return self.exactly(x.to(self.device), y.to(self.device), index.to(self.device))

    def exactly(self, x: torch.Tensor, y: torch.Tensor, index: torch.Tensor) -> float:
        """One step of the reference on this batch, in its precision; cuDNN tries its algorithms, as for ours."""
        before = torch.backends.cudnn.benchmark
        torch.backends.cudnn.benchmark = True
        try:
            with contextlib.nullcontext() if self.tf32 else full_precision():
                return self.reference.step(x, y, index)
        finally:
            torch.backends.cudnn.benchmark = before


def parity(asked, device, method: str) -> None:
    """One step from the same weights on the same batch: loss and weights agree, in float64 but for rounding."""
    for compiled in asked.compile.split(","):
        for form in asked.references.split(","):
            # What is compiled in float64 is a minute of compiling: not where float32 is not asked for.
            if form.endswith(TF32) or (compiled != "never" and "fp32" not in asked.precisions):
                continue
            plain, ours, worst = both(asked, device, method, form, compiled, torch.float64)
            print(
                f"Parity in float64, {method} against {form}, compile {compiled}: losses {plain:.9f} and {ours:.9f},"
                f" largest difference of a weight {worst:.1e}."
            )
            # The table of refined labels is float32 in both.
            require(abs(plain - ours) <= 1e-6 and worst <= 1e-6, f"step of {method}")
        if "bf16" in asked.precisions:
            plain, ours, _ = both(asked, device, method, "grad", compiled, torch.bfloat16)
            print(
                f"Parity of bf16, {method}, compile {compiled}: loss {ours:.4f} where the reference in float32 has"
                f" {plain:.4f} (5% allowed)."
            )
            require(abs(plain - ours) <= 0.05 * plain, f"bf16 step of {method}")


def both(asked, device, method: str, form: str, compiled: str, dtype: torch.dtype) -> tuple[float, float, float]:
    """Losses of the reference's (last) step and of ours, and the largest difference of a weight afterwards."""
    precision = "bf16" if dtype is torch.bfloat16 else "fp32"
    case = Case(asked, device, method, precision, exact=True, form=form, compiled=compiled)
    x, y = case.split.images(slice(0, asked.batch)), case.split.given[: asked.batch]
    index = torch.arange(asked.batch, device=device)
    if precision == "fp32":
        x, case.reference.table = x.double(), case.reference.table.double()
    # What is compiled is warmed up by the first call, recorded as a CUDA graph by the second, replayed by the third.
    for _ in range(1 if compiled == "never" else REPLAYED):
        plain = case.exactly(x, y, index)
        ours, *_ = take(case.plan, case.learner, x, y, index, case.epoch, 0)
    other = case.reference.model.state_dict()
    worst = max(float((value - other[name]).abs().max()) for name, value in case.learner.model.state_dict().items())
    return plain, float(ours), worst


def row(table: Table, asked, device, method: str, precision: str, compiled: str, matrix: float) -> None:
    """One row for each form of the reference."""
    forget_compiled(device)
    name = f"{method}, {precision}{', compiled' if compiled != 'never' else ''}"
    try:
        _row(table, asked, device, method, precision, compiled, matrix, name)
    except Exception as error:
        failed(table, name, error)


def _row(
    table: Table, asked, device, method: str, precision: str, compiled: str, matrix: float, name: str
) -> None:  # fmt: skip
    case = Case(asked, device, method, precision, compiled=compiled)
    flops, memory = operations(asked, method), case.reserved()
    if asked.profile:  # first: references take longer, and what is cut off is lost
        with apart(f"profile of {name}"):
            profiled(case, asked, device, name)
    for form in asked.references.split(","):
        reference = Case(asked, device, method, precision, form=form)
        times = in_turns(
            lambda reference=reference: [reference.plain() for _ in range(asked.steps)],
            lambda: [case.ours(number) for number in range(asked.steps)],
            asked.rounds,
            device,
        )
        table.row(
            name, f'plain, "{form}"', times, each=asked.steps, images=asked.batch * asked.steps,
            gflop=flops / asked.batch / 1e9, share=flops * asked.steps / times.ours / matrix, memory=memory,
        )  # fmt: skip


def profiled(case: Case, asked, device, name: str) -> None:
    """Torch's profile of one step of ours, as text."""
    from torch.profiler import profile

    with profile() as found:
        case.ours()
    order = f"self_{device.type}_time_total"
    listing = found.key_averages().table(sort_by=order, row_limit=25, max_name_column_width=40)
    text = f"{asked.model}, batch {asked.batch}, {name}\n{listing}\n"
    if asked.profile == "-":
        print(f"\n{text}", flush=True)
    else:
        with Path(asked.profile).open("a") as file:
            file.write(text)


def extra(table: Table, asked, device, precision: str, compiled: str) -> None:
    """What SGLR costs: a row with our own step of AT as the reference."""
    at, sglr = (Case(asked, device, method, precision, compiled=compiled) for method in ("at", "sglr"))
    times = in_turns(
        lambda: [at.ours(number) for number in range(asked.steps)],
        lambda: [sglr.ours(number) for number in range(asked.steps)],
        asked.rounds,
        device,
    )
    name = f"sglr, {precision}{', compiled' if compiled != 'never' else ''}"
    table.row(name, "ours, at", times, each=asked.steps, images=asked.batch * asked.steps)


def measuring(table: Table, asked, device, precision: str, compiled: str) -> None:
    """What is measured after an epoch, with one in 49 images for validation, beside the epoch's steps themselves."""
    case = Case(asked, device, "at", precision, compiled=compiled)
    train, some = case.split, slice(0, max(1, len(case.split) // 49))
    validation, predicted = Split(train.x[some], train.given[some], train.true[some]), torch.zeros_like(train.given)
    refined = case.learner.labels.refined(1, torch.arange(len(train), device=device))

    def measured() -> None:
        with monitoring(precision, device):
            measure(case.plan, case.learner.model, refined, train, validation, 1, predicted)

    steps = len(train) // asked.batch
    times = in_turns(lambda: [case.ours(number) for number in range(steps)], measured, asked.rounds, device)
    name = f"measured after an epoch, weights of {precision}{', compiled' if compiled != 'never' else ''}"
    table.row(name, "ours, at: its steps", times, images=len(train))


def operations(asked, method: str) -> int:
    """Floating point operations of one step of ours: counted on two images, on the CPU, and scaled."""
    return _of_two(asked.model, method) * asked.batch // 2


@cache
def _of_two(model: str, method: str) -> int:
    few = argparse.Namespace(model=model, batch=2, steps=1, workers=0)
    case = Case(few, torch.device("cpu"), method, "fp32")
    with Counted() as counted:
        case.ours()
    return counted.total


if __name__ == "__main__":
    main()
