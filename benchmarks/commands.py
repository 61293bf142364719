"""Start-up of each stage, `sglr --help`, and a `dvc repro` that has nothing to do."""

import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from layout import ROOT, Table, Times
from startup import WORK

from sglr import config
from sglr.project import status


def section(rounds: int) -> None:
    """The table; rows that need a finished study stay empty without one, with the reason."""
    print(
        "\nOf stages: from the start of the process to the one library call that is its work; MLflow is imported"
        " beside it, in a thread. CPU: the processor's seconds, which other processes on the machine hardly lengthen."
    )
    table = Table("Start-up")
    python = Path(sys.executable)
    add(table, "`sglr --help`", "python -c pass", [python, "-c", "pass"], [python.parent / "sglr", "--help"], rounds)
    done = all(one.state == "done" for one in status.status(ROOT))
    if not done:
        table.empty("stages and `dvc repro`", "no finished study here: run `dvc repro` first")
        return
    importing = [python, "-c", "import torch"]
    settings = config.load(ROOT / "params.yaml").experiment
    seed, item = [str(settings.seeds[0])], [settings.methods[-1], str(settings.seeds[0])]
    arguments = {"warmup": seed, "train": item, "evaluate": item, "analyze": item}
    with tempfile.TemporaryDirectory(dir=ROOT / ".sglr") as folder:
        copy = Path(folder) / "project"
        copy_project(copy)
        for stage in WORK:
            call = [python, Path(__file__).with_name("startup.py"), stage, *arguments.get(stage, [])]
            add(table, stage, "import torch", importing, call, rounds, copy, until_work)
    dvc = python.parent / "dvc"
    add(table, "`dvc repro`, nothing to do", "dvc version", [dvc, "version"], [dvc, "repro"], rounds, ROOT)


def copy_project(to: Path) -> None:
    """What git tracks, and the results by hard links, in a folder of their own: stages may write there."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if not name.startswith("artifacts/") and (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)
    shutil.copytree(ROOT / "artifacts", to / "artifacts", copy_function=os.link)


Measured = tuple[float, float]
"""Seconds by the clock and of the processor."""


def whole(call: list[str | Path], cwd: Path) -> Measured:
    """Of a command from its start to its end."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    subprocess.run(call, cwd=cwd, env=environment(cwd), capture_output=True, check=True)
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def until_work(call: list[str | Path], cwd: Path) -> Measured:
    """Of a stage up to its work, as startup.py reports it."""
    started = time.time()
    done = subprocess.run(call, cwd=cwd, env=environment(cwd), capture_output=True, text=True, check=True)
    moment, processor = json.loads(done.stdout.splitlines()[-1])
    return moment - started, processor


def environment(cwd: Path) -> dict[str, str]:
    """Quiet, one thread, and a run database that goes with the copy."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DVC_", "SGLR_"))}
    tracking = {} if cwd == ROOT else {"MLFLOW_TRACKING_URI": f"sqlite:///{cwd}/mlflow.db"}
    return kept | tracking | {"DVC_NO_ANALYTICS": "true", "MLFLOW_DISABLE_TELEMETRY": "true", "OMP_NUM_THREADS": "1"}


def add(
    table: Table, what: str, against: str, reference: list, ours: list, rounds: int, cwd: Path = ROOT,
    measure: Callable[[list, Path], Measured] = whole,
) -> None:  # fmt: skip
    """Two rows, by the clock and in seconds of the processor."""
    pairs = [(whole(reference, cwd), measure(ours, cwd)) for _ in range(rounds + 1)][1:]
    for number, name in enumerate(("", ", CPU")):
        plain, own = ([pair[side][number] for pair in pairs] for side in (0, 1))
        ratios = sorted(first / second for first, second in zip(plain, own, strict=True))
        table.row(f"{what}{name}", against, Times(statistics.median(plain), statistics.median(own), tuple(ratios)))
