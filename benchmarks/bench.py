"""All benchmarks, one after another, as text ready for RESULTS.md: `python benchmarks/bench.py [PART...]`.

Parts: commands, step, processes, augmentation, forms, attack, evaluation, autoattack, analysis, cost. Each but
autoattack compares with a stated reference in the same process, in turns, after both were found to give the same. On a
GPU (`--device cuda`) the step is timed at several batch sizes and precisions, eager and compiled; without one those
rows are not there. On a GPU that is lent for minutes, `--quick`: fewer sizes and rounds, one form of the reference, the
ResNet alone; `throughput.py` has all sizes and precisions without a reference.
"""

import argparse

from sglr import processes

processes.let_threads_sleep()
import commands
import cost
import parts
import step
import team
import torch
from layout import CLOCKS, apart, head, use_clock

from sglr.models.precision import full_precision

SMALL = ("small_cnn", (1, 8, 8))
LARGE = ("resnet18", (3, 32, 32))
PARTS = (
    "commands", "step", "processes", "augmentation", "forms", "attack", "evaluation", "autoattack", "analysis", "cost",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], metavar="PART")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="on a GPU: batches of 128 and 512, three rounds, no tf32")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: on a machine that others use")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    use_clock(asked.clock)
    device = torch.device(asked.device)
    print(head(asked.threads, device))
    for part in asked.parts or PARTS:
        with apart(part):
            section(part, asked, device)


def section(part: str, asked: argparse.Namespace, device: torch.device) -> None:
    """One part."""
    if part == "commands":
        commands.section(min(asked.rounds, 5))
    elif part == "step":
        steps(asked, device)
    elif part == "processes":
        team.section(asked.rounds, device)
    elif part == "augmentation":
        parts.augmentation(asked.rounds, device)
    elif part == "cost":
        cost.counted()
        cost.growth(device, asked.rounds)
    else:
        others(part, asked, device)


def steps(asked: argparse.Namespace, device: torch.device) -> None:
    """The default experiment's step and the ResNet's; on a GPU the ResNet's at several sizes."""
    common = {
        "methods": "at,sglr",
        "workers": 1,
        "references": "grad,backward",
        "rounds": asked.rounds,
        "profile": None,
    }
    if device.type == "cuda":
        case = {"model": LARGE[0], "steps": 5, "precisions": "fp32,tf32,bf16", "compile": "never,always"}
        case |= {"references": "grad,grad-tf32,backward-tf32", "workers": 4}
        if asked.quick:
            case |= {"steps": 3, "precisions": "fp32,bf16", "references": "grad", "rounds": min(asked.rounds, 3)}
        for batch in (128, 512) if asked.quick else (128, 256, 512, 1024):
            case["batch"] = batch
            step.section(argparse.Namespace(**common | case), device)
        return
    case = {"precisions": "fp32,bf16", "compile": "never"}
    small = {"model": SMALL[0], "batch": 100, "steps": 5}
    step.section(argparse.Namespace(**common | case | small), device)
    large = {"model": LARGE[0], "batch": 16, "steps": 1, "rounds": min(asked.rounds, 3)}
    step.section(argparse.Namespace(**common | case | large), device)


def others(part: str, asked: argparse.Namespace, device: torch.device) -> None:
    """Forms, attack, evaluation, AutoAttack or analysis, of the small network and, on a GPU, of the ResNet."""
    gpu, rounds = device.type == "cuda", asked.rounds
    for model, shape in ((LARGE,) if asked.quick else (LARGE, SMALL)) if gpu else (SMALL,):
        if part == "forms":
            with apart("forms"):
                parts.forms(rounds, device, model, shape, 128)
            parts.compiled_attack(rounds, device, model, shape, 128)
            continue
        # As evaluation and analysis are: torch's defaults let a GPU's convolutions use TF32.
        with full_precision():
            if part == "attack":
                parts.attack(rounds, device, model, shape, 100)
            elif part == "evaluation":
                parts.evaluation(min(rounds, 3), device, model, shape, 5000 if gpu else 500, 0 if asked.quick else 20)
            elif part == "autoattack":
                parts.autoattack_time(device, model, shape, 96 if gpu else 8)
            else:
                parts.analysis(rounds, device, model, shape, 64)


if __name__ == "__main__":
    main()
