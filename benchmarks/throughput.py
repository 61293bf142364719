"""Images a second of a training step, ours alone: precisions, eager and compiled, batch sizes.

    python benchmarks/throughput.py                                          # ResNet-18 on a GPU: 48 rows
    python benchmarks/throughput.py --model small_cnn --batches 100 --precisions fp32,bf16

step.py compares with a reference, which takes several times as long as what is measured. Each row is printed as it is
known: first the form that is named first everywhere, then what differs from it in one thing, and so on. Before the
first one an eager step is compared with the reference's (`step.parity`).
"""

import argparse
import itertools
from functools import partial
from typing import Any

from sglr import processes

processes.let_threads_sleep()
import statistics

import torch
from layout import Table, Times, apart, failed, forget_compiled, head, seconds
from matrix import rate
from step import REPLAYED, Case, operations, parity


def main() -> None:
    """Parity, then the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--batches", default="128,512,1024,256")
    parser.add_argument("--precisions", default="bf16,fp32,tf32")
    parser.add_argument("--methods", default="sglr,at")
    parser.add_argument("--compile", default="never,always")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="of a round, about")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    device = torch.device(asked.device)
    print(head(asked.threads, device))
    batches, precisions = [int(batch) for batch in asked.batches.split(",")], asked.precisions.split(",")
    eager = {"compile": "never", "references": "grad", "workers": 0, "steps": 1, "batch": min(*batches, 16)}
    for method in asked.methods.split(","):
        with apart(f"parity of {method}"):
            parity(argparse.Namespace(**vars(asked) | eager), device, method)
    rates = {precision: rate(precision, device) for precision in precisions}
    said = ", ".join(f"{precision} {found / 1e12:.3g} TFLOP/s" for precision, found in rates.items())
    print(f"Measured rate of matrix products: {said}.")
    table = Table(f"Training step, {asked.model}, ours alone")
    choices = (asked.compile.split(","), asked.methods.split(","), precisions, batches)
    for compiled, method, precision, batch in sorted(itertools.product(*choices), key=partial(_place, choices)):
        row(table, asked, device, batch, compiled, precision, method, rates[precision])


def _place(choices: tuple[list[Any], ...], form: tuple[Any, ...]) -> tuple[int, ...]:
    """Sorts forms by how many of their parts are not the first choice; among equals compiled ones come first."""
    places = [possible.index(chosen) for possible, chosen in zip(choices, form, strict=True)]
    return sum(place > 0 for place in places), -places[0], *places[1:]


def row(
    table: Table, asked: argparse.Namespace, device: torch.device, batch: int, compiled: str, precision: str,
    method: str, matrix: float,
) -> None:  # fmt: skip
    """Time as many steps as about ``--seconds`` have, in rounds; a row that does not fit the memory says so."""
    name = f"{method}, {precision}, batch {batch}{', compiled' if compiled != 'never' else ''}"
    of = argparse.Namespace(model=asked.model, batch=batch, steps=1, workers=0)
    forget_compiled(device)
    try:
        case = Case(of, device, method, precision, compiled=compiled)
        for _ in range(1 if compiled == "never" else REPLAYED):
            case.ours()
        memory = case.reserved()
        once = seconds(case.ours, device)
        steps = max(1, round(asked.seconds / once))
        times = [seconds(lambda: [case.ours(number) for number in range(steps)], device) for _ in range(asked.rounds)]
    except torch.OutOfMemoryError:
        table.empty(name, "does not fit the memory")
        return
    except Exception as error:
        failed(table, name, error)
        return
    taken, flops = statistics.median(times), operations(of, method)
    table.row(
        name, f"nothing, {asked.rounds} rounds of {steps}", Times(None, taken), each=steps, images=batch * steps,
        gflop=flops / batch / 1e9, share=flops * steps / taken / matrix, memory=memory,
    )  # fmt: skip


if __name__ == "__main__":
    main()
