"""All that only a GPU can show, for one that is there for minutes: `python benchmarks/gpu.py OUT --minutes 9`.

What matters most comes first, and takes nine minutes at most; what is left is for a second call (`--tasks forms step
others`). Each task writes into a file of its own in OUT as it goes, so that what it printed before it was cut off
stays; a summary ends the output. Needs the library (pydantic, safetensors, click, pyyaml, filelock, tqdm),
scikit-learn, pytest and pyautoattack; no network, neither DVC nor MLflow. With `--data FILE.npz` (data/README.md) a
ResNet is trained on it.
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

from layout import ROOT

BENCH = ["benchmarks/bench.py", "--quick"]
TESTS = ["-m", "pytest", "-p", "at_once", "tests/test_gpu.py", "-v", "--tb=short", "--durations=10"]
NEEDED = ("torch", "pydantic", "yaml", "click", "safetensors", "filelock", "tqdm", "sklearn", "pytest", "pyautoattack")
LATER = ("forms", "step", "others")
# Eager first: what is compiled takes most of the time.
EAGER = "on_the_cpu or never or succeed"


def tasks(asked: argparse.Namespace) -> dict[str, tuple[list[str], float]]:
    """By name what python is called with, and the minutes it may take at most."""
    workers = ["-n", str(asked.workers)] if asked.workers else []
    profile = ["benchmarks/step.py", "--model", "resnet18", "--batch", "128", "--methods", "sglr"]
    profile += ["--precisions", "bf16", "--compile", "always", "--references", "grad,grad-tf32,backward-tf32"]
    profile += ["--rounds", "3", "--steps", "10", "--profile", "-"]
    found = {
        "tests-eager": ([*TESTS, *workers, "-k", EAGER], 1.0),
        "step-sglr": (profile, 1.5),
        "throughput": (["benchmarks/throughput.py"], 2.5),
        "autoattack": ([*BENCH, "autoattack"], 1.0),
        "training": (["benchmarks/training.py", str(asked.data)], 2.0),
        "tests-compiled": ([*TESTS, *workers, "-k", f"not ({EAGER})"], 1.0),
        "forms": ([*BENCH, "forms"], 1.5),
        "step": ([*BENCH, "step"], 4.0),
        "others": ([*BENCH, "augmentation", "attack", "analysis", "evaluation", "cost"], 4.0),
    }
    return {name: task for name, task in found.items() if name != "training" or asked.data}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=lambda path: Path(path).resolve())
    parser.add_argument("--minutes", type=float, default=9.0)
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
    if lack := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        parser.error(f"not installed: {', '.join(lack)}; every task needs them, and the time of a GPU is not begun")
    (asked.out / "summary.txt").unlink(missing_ok=True)
    ends = time.monotonic() + 60 * asked.minutes
    for name in asked.tasks or [name for name in known if name not in LATER]:
        call, minutes = known[name]
        left = min(60 * minutes, ends - time.monotonic())
        if asked.device and call[0] != "-m":
            call = [*call, "--device", asked.device]
        end = run(call, asked.out / f"{name}.txt", left, asked.device) if left > 0 else "not begun, the time was up"
        with (asked.out / "summary.txt").open("a") as file:
            file.write(f"{name}: {end}\n")
    print((asked.out / "summary.txt").read_text())


def run(call: list[str], log: Path, seconds: float, device: str | None) -> str:
    """Run python with this call for so long at most; how it ended. What it prints goes to the log and the screen."""
    paths = [str(ROOT), str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))}
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
            start_new_session=True,
        )  # fmt: skip
        try:
            end = f"ended with {task.wait(seconds)}"
        except subprocess.TimeoutExpired:
            end = "cut off"
        finally:
            # Its own processes too (pytest's, a loader's): they would go on using the GPU.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(task.pid, signal.SIGKILL)
            task.wait()
    print(log.read_text()[-3000:], flush=True)
    return f"{end} after {time.monotonic() - began:.0f} s"


if __name__ == "__main__":
    main()
