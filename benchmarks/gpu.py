"""All that only a GPU can show, for one that is there for minutes: `python benchmarks/gpu.py OUT --minutes 8.5`.

What matters most comes first, and last what takes any time and writes row by row; what is left is for a second call
(`--tasks autoattack forms step tests-rest others`). A result
that differs from its reference is said, and what comes after it is measured all the same. Each task writes into a
file of its own in OUT as it goes, so that what it printed before it was cut off stays; a summary ends the output.
Needs the library (pydantic, safetensors, click, pyyaml, filelock, tqdm), scikit-learn, pytest and pyautoattack; no
network, neither DVC nor MLflow. With `--data FILE.npz` (data/README.md) a ResNet is trained on it.
"""

import argparse
import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from layout import GO_ON, ROOT

BENCH = ["benchmarks/bench.py", "--quick"]
TESTS = ["-m", "pytest", "-p", "at_once", "tests/test_gpu.py", "-v", "--tb=short", "--durations=10"]
NEEDED = ("torch", "pydantic", "yaml", "click", "safetensors", "filelock", "tqdm", "sklearn", "pytest", "pyautoattack")
LATER = ("autoattack", "forms", "step", "tests-rest", "others")
EAGER = "on_the_cpu or never or succeed"
# Of what is compiled, which takes minutes: whole trainings and evaluations, two precisions, the two main methods.
FIRST = "(as_robust or goes_on or compiled_evaluation or near_the_plain or [at-always or [sglr-always) and not tf32"
# The first call of a process on a machine that has just started reads gigabytes of libraries.
WARM = "import torch; torch.nn.Conv2d(3, 8, 3).cuda()(torch.rand(2, 3, 8, 8, device='cuda')).sum().backward()"


def tasks(asked: argparse.Namespace) -> dict[str, tuple[list[str], float]]:
    """By name what python is called with, and the minutes it may take at most."""
    workers = ["-n", str(asked.workers)] if asked.workers else []
    profile = ["benchmarks/step.py", "--model", "resnet18", "--batch", "128", "--methods", "sglr"]
    profile += ["--precisions", "bf16", "--compile", "always,never", "--references", "grad,grad-tf32,backward-tf32"]
    profile += ["--rounds", "3", "--steps", "10", "--workers", "4", "--profile", "-"]
    training = [
        "benchmarks/training.py",
        str(asked.data),
        "--epochs",
        "5",
        "--examples",
        str(63 * 128),
    ]  # whole batches: others are not compiled
    found = {
        "warm": (["-c", WARM], 0.7),
        "step-sglr": (profile, 2.0),
        "tests-eager": ([*TESTS, *workers, "-k", EAGER], 1.0),
        "tests-compiled": ([*TESTS, *workers, "-k", f"({FIRST}) and not ({EAGER})"], 1.5),
        "training": (training, 2.0),
        "throughput": (["benchmarks/throughput.py"], 3.5),
        "autoattack": ([*BENCH, "autoattack"], 1.5),
        "forms": ([*BENCH, "forms"], 1.5),
        "step": ([*BENCH, "step"], 4.0),
        "tests-rest": ([*TESTS, *workers, "-k", f"not ({FIRST}) and not ({EAGER})"], 2.0),
        "others": ([*BENCH, "augmentation", "attack", "analysis", "evaluation", "cost"], 4.0),
    }
    possible = {"training": asked.data, "warm": not asked.device}
    return {name: task for name, task in found.items() if possible.get(name, True)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=lambda path: Path(path).resolve())
    parser.add_argument("--minutes", type=float, default=8.5)
    parser.add_argument("--data", type=lambda path: Path(path).resolve())
    parser.add_argument("--workers", type=int, default=0, help="processes of pytest, with pytest-xdist")
    parser.add_argument("--device", help="what every benchmark is given; cpu: to try this script")
    parser.add_argument("--tasks", nargs="*", help="these, in this order; default: those that matter most")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    known = tasks(asked)
    unknown = set(asked.tasks or ()) - set(known)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    needed = (*NEEDED, *(["xdist"] if asked.workers else []))
    if lack := [name for name in needed if importlib.util.find_spec(name) is None]:
        parser.error(f"not installed: {', '.join(lack)}; every task needs them, and the time of a GPU is not begun")
    (asked.out / "summary.txt").unlink(missing_ok=True)
    ends = time.monotonic() + 60 * asked.minutes
    for name in asked.tasks or [name for name in known if name not in LATER]:
        call, minutes = known[name]
        left = min(60 * minutes, ends - time.monotonic())
        if asked.device and not call[0].startswith("-"):
            call = [*call, "--device", asked.device]
        end = run(call, asked.out / f"{name}.txt", left, asked.device) if left > 0 else "not begun, the time was up"
        with (asked.out / "summary.txt").open("a") as file:
            file.write(f"{name}: {end}\n")
    print((asked.out / "summary.txt").read_text())


def run(call: list[str], log: Path, seconds: float, device: str | None) -> str:
    """Run python with this call for so long at most; how it ended. What it prints goes to the log and the screen."""
    paths = [str(ROOT), str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {
        "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        GO_ON: "1",
    }  # fmt: skip
    if "pytest" in call:
        # Each of its processes would start as many compilers as there are cores.
        environment["TORCHINDUCTOR_COMPILE_THREADS"] = "2"
    if device:
        environment["SGLR_TEST_GPU"] = device
    began = time.monotonic()
    print(f"\n== python {' '.join(call)}  (at most {seconds:.0f} s)", flush=True)
    with log.open("w") as file:
        task = subprocess.Popen(
            [sys.executable, *call], cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT,
            process_group=0,  # of its own, but in this session: who ends that ends this, too
        )  # fmt: skip
        try:
            end = f"ended with {task.wait(seconds)}"
        except subprocess.TimeoutExpired:
            end = "cut off"
        finally:
            # Its own processes too (pytest's, a loader's): they would go on using the GPU.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(task.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                task.wait(10)  # one that hangs in a driver does not end
    print(log.read_text(encoding="utf-8", errors="replace")[-3000:], flush=True)
    return f"{end} after {time.monotonic() - began:.0f} s"


if __name__ == "__main__":
    main()
