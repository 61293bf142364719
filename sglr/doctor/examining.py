"""Is everything here that a run needs, and what to do where it is not."""

import contextlib
import difflib
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sglr import files, processes
from sglr.config import Config, ConfigError, doubts, load, packages
from sglr.config.wording import counted
from sglr.doctor import machine, space

if TYPE_CHECKING:
    from sglr.project.status import Status

Level = Literal["ok", "warning", "problem"]
# What is needed for what. Without what the library itself imports, this module cannot be imported either.
PACKAGES = {
    "training": ("safetensors", "filelock", "tqdm"),
    "the pipeline": ("dvc", "mlflow", "psutil", "matplotlib", "jinja2", "pandas", "ruamel.yaml"),
    "MLflow's system metrics of GPUs": ("nvidia-ml-py",),
    "AutoAttack and Square Attack": ("pyautoattack",),
    "intervals over seeds and temperatures": ("scipy",),
    "`sglr predict`": ("pillow",),
    "data sets": ("scikit-learn", "torchvision"),
}
VARIABLES = (
    "SGLR_DATA_ROOT", "SGLR_DEVICE", "SGLR_NPROC", "SGLR_SNAPSHOT_SECONDS", "SGLR_SYSTEM_METRICS", "SGLR_TRACKING",
    "SGLR_TRACKING_WAIT",
)  # fmt: skip
# From so many seconds of trainings on a CPU on there is a warning.
_LONG = 24 * 3600
# Seconds of an item beside its work: it starts, logs and writes files.
_BESIDE = 5.0


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at, and what to do about it where something is wrong."""

    level: Level
    about: str
    text: str


def examine(root: Path) -> list[Finding]:
    """What can be told without running a stage: versions, params, device, data, time, disk, tracking, the project."""
    config, params = _params(root)
    items = _items(root)
    checks: tuple[Callable[[], Iterator[Finding]], ...] = (
        lambda: iter([Finding("ok", "python", platform.python_version())]),
        lambda: _packages(config),
        lambda: iter(params),
        _environment,
        lambda: _device(config),
        lambda: _jobs(config),
        lambda: _data(root, config),
        lambda: _time(root, config, items),
        lambda: _disk(root, config, items),
        lambda: _tracking(root),
        lambda: _repository(root, items),
    )
    return [finding for check in checks for finding in check()]


def _packages(config: Config | None) -> Iterator[Finding]:
    for purpose, names in PACKAGES.items():
        if missing := packages.missing(names):
            level: Level = "problem" if purpose == "training" else "warning"
            todo = 'pip install -e ".[pipeline]" installs all'
            yield Finding(level, "packages", f"{', '.join(missing)} missing, needed for {purpose}: {todo}")
    versions = {name: packages.version(name) for name in ("torch", "dvc", "mlflow")}
    shown = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    yield Finding("ok", "packages", shown)
    if config is None:
        return
    from sglr.attacks.requested import requested

    for key, options in {"data.source": config.data.source, **requested(config)}.items():
        for package in packages.missing(options.packages):
            yield Finding("problem", "packages", f"{key} needs {package}: pip install {package}")


def _params(root: Path) -> tuple[Config | None, list[Finding]]:
    path = root / "params.yaml"
    try:
        config = load(path)
    except ConfigError as error:
        return None, [Finding("problem", "params", str(error))]
    methods, seeds = config.experiment.methods, config.experiment.seeds
    return config, [
        Finding(
            "ok",
            "params",
            f"{counted(len(methods), 'method')}, {counted(len(seeds), 'seed')} ({config.experiment.name})",
        ),
        *(Finding("warning", "params", doubt) for doubt in doubts(config)),
    ]


def _items(root: Path) -> "list[Status] | None":
    """The state of every item; None where it cannot be told."""
    from sglr.project import status

    try:
        return status.status(root)
    except (files.FileError, ConfigError):  # said where the project and params are looked at
        return None


def _environment() -> Iterator[Finding]:
    for problem in filter(None, (machine.nameless(), machine.safe_path())):
        yield Finding("problem", "environment", problem)
    if other := machine.other_python():
        yield Finding("warning", "environment", other)
    for name in sorted(name for name in os.environ if name.startswith("SGLR_") and name not in VARIABLES):
        near = difflib.get_close_matches(name, VARIABLES, 1)
        meant = f": perhaps {near[0]} is meant" if near else f": there are {', '.join(VARIABLES)}"
        yield Finding("warning", "environment", f"{name} is read by nothing{meant}")


def _device(config: Config | None) -> Iterator[Finding]:
    import torch

    from sglr.models.compiling import wanted
    from sglr.training.snapshots import interval

    gpus, device = torch.cuda.device_count(), None
    try:
        device = processes.device(os.environ.get("SGLR_DEVICE", "auto"))
        processes.count(os.environ.get("SGLR_NPROC", "auto"), device)
        interval(os.environ.get("SGLR_SNAPSHOT_SECONDS", "30"))
    except ConfigError as error:
        yield Finding("problem", "device", str(error))
    if gpus:
        for number in range(gpus):
            # Not its free memory: asking for that takes some of it on every GPU, and fails on one that is not shared.
            found = torch.cuda.get_device_properties(number)
            yield Finding("ok", "device", f"cuda:{number} {found.name}, {found.total_memory / 2**30:.0f} GiB")
    else:
        yield Finding("ok", "device", f"CPU, {counted(processes.cores(), 'core')}")
        if useless := machine.useless_gpu():
            yield Finding("warning", "device", useless)
    asked = [] if config is None else [("train", config.train.compile), ("evaluate", config.evaluate.compile)]
    for section, compile_ in asked:
        if (
            device is not None
            and device.type == "cuda"
            and wanted(compile_, device)
            and (lack := machine.no_compiler())
        ):
            yield Finding("warning", "device", f"{section}.compile {compile_} needs {lack}, which is missing")
    if config is not None and config.train.precision == "tf32" and not gpus:
        yield Finding("warning", "device", "train.precision tf32 is float32 on a CPU")
    if config is not None and config.experiment.threads > processes.cores():
        yield Finding(
            "warning", "device", f"experiment.threads {config.experiment.threads} on"
            f" {counted(processes.cores(), 'core')}: slower"
        )  # fmt: skip


def _jobs(config: Config | None) -> Iterator[Finding]:
    from sglr.project.side_by_side import places

    with contextlib.suppress(ConfigError):  # which is said where the device is looked at
        at_once = 1 if config is None else len(places(None, config.experiment.threads))
        if at_once > 1:
            yield Finding("ok", "jobs", f"`dvc repro` runs one item after another, `sglr run` {at_once} at a time")


def _data(root: Path, config: Config | None) -> Iterator[Finding]:
    if config is None:
        return
    from sglr.attacks.requested import misfits

    asked = os.environ.get("SGLR_DATA_ROOT")
    try:
        there, text = config.data.source.look(Path(asked) if asked else None)
    except files.FileError as error:
        yield Finding("problem", "data", str(error))
    else:
        yield Finding("ok" if there else "warning", "data", text)
    try:
        known = space.expected(config, root / "artifacts" / "data")
    except files.FileError as error:
        yield Finding("problem", "data", str(error))
        return
    for misfit in () if known.assumed else misfits(config, known.classes, known.shape):
        yield Finding("problem", "data", misfit)


def _time(root: Path, config: Config | None, items: "list[Status] | None") -> Iterator[Finding]:
    if config is None:
        return
    import torch

    from sglr.doctor import duration
    from sglr.project.running import in_words

    done = _done(items)
    try:
        device = processes.device(os.environ.get("SGLR_DEVICE", "auto"))
        trainings = duration.of_trainings(config, root / "artifacts" / "data", device, done)
        evaluations = duration.of_evaluations(config, root / "artifacts" / "data", device, done)
    except (files.FileError, ConfigError):  # said where device, data and params are looked at
        return
    except torch.OutOfMemoryError as error:
        yield Finding("problem", "time", f"an attack step of {config.model.name} does not fit the GPU: {error}")
        return
    by = f"by an attack step of {config.model.name} here"
    known = space.expected(config, root / "artifacts" / "data")
    # Their number and size are not in the params.
    guess = "a guess until the data are prepared, as if they were CIFAR-10: " if known.assumed else ""

    def said(text: str, seconds: float, shorter: str) -> Finding:
        long = seconds > _LONG and device.type == "cpu"
        return Finding("warning" if long else "ok", "time", text + (shorter if long else ""))

    left, which = _left(config, "train", done)
    trainings += left * _BESIDE
    text = f"{guess}about {in_words(trainings)} for {which} trainings, {by}" if left else f"{which} trainings are done"
    yield said(text, trainings, ": a GPU, a smaller model or fewer seeds take less")
    left, which = _left(config, "evaluate", done)
    which += " evaluations"
    if not left and "audit" in done:
        yield Finding("ok", "time", f"{which} and their audit are done")
        return
    if evaluations is None:
        attacks = config.evaluate.attacks.items()
        silent = [f"evaluate.attacks.{name}" for name, attack in attacks if attack.passes(known.classes) is None]
        todo = "a method `passes` of its options tells its forward and backward passes"
        yield Finding("ok", "time", f"of evaluation nothing is known because of {', '.join(silent)}: {todo}")
        return
    evaluations += left * _BESIDE
    which = f"{which} and their audit" if left else "the audit"
    text = f"{guess}at most about {in_words(evaluations)} for {which}, {by}: less, the more examples are broken"
    yield said(text, evaluations, "; evaluate.attacks.*.n_examples limits it")


def _done(items: "list[Status] | None") -> set[str]:
    """Names of the items that need not run."""
    return {one.item for one in items or () if one.state == "done"}


def _left(config: Config, stage: str, done: set[str]) -> tuple[int, str]:
    """How many items of a stage are still to run; 'all 6', or '4 of 6', in words."""
    pairs = [f"{stage}@{method}-{seed}" for method in config.experiment.methods for seed in config.experiment.seeds]
    left = sum(pair not in done for pair in pairs)
    return left, f"all {len(pairs)}" if left in (0, len(pairs)) else f"{left} of {len(pairs)}"


def _disk(root: Path, config: Config | None, items: "list[Status] | None") -> Iterator[Finding]:
    free, needed, text = shutil.disk_usage(root).free, 0, ""
    # Where params or data keep it from being told, that is said where they are looked at.
    with contextlib.suppress(files.FileError, ConfigError):
        if config is not None:
            needed = space.of_study(config, root / "artifacts" / "data", _done(items))
            text = f", up to {space.megabytes(needed)} needed for what is still to run"
            if not needed:
                text = ", all items are done"
    level: Level = "ok" if free > 2 * needed + 1e9 else "warning" if free > needed else "problem"
    yield Finding(level, "disk", f"{free // 10**6:,} MB free{text}")
    if not os.access(root, os.W_OK):
        yield Finding("problem", "disk", f"{root.resolve()} cannot be written to")


def _tracking(root: Path) -> Iterator[Finding]:
    from sglr.tracking.reachability import examine

    try:
        found = list(examine(root))
    except ConfigError as error:
        yield Finding("problem", "tracking", str(error))
        return
    for level, text in found:
        yield Finding(level, "tracking", text)


def _repository(root: Path, items: "list[Status] | None") -> Iterator[Finding]:
    for needed, todo in ((".dvc", "run `dvc init`"), ("dvc.yaml", "run it in the project")):
        if not (root / needed).exists():
            yield Finding("problem", "project", f"there is no {needed} in {root.resolve()}: {todo}")
    if lack := machine.no_repository(root):
        yield Finding("problem", "project", lack)
    elif said := machine.mute_git(root):
        yield Finding("warning", "project", said)
    if items is None:
        return
    for one in items:
        if one.state == "orphaned":
            yield Finding("warning", "project", f"{one.item} runs on although its pipeline is gone; it stops by itself")
    done = sum(one.state == "done" for one in items)
    yield Finding("ok", "project", f"{done} of {len(items)} items done")


def worst(found: list[Finding]) -> Level:
    """The gravest level among findings."""
    order: tuple[Level, ...] = ("ok", "warning", "problem")
    return max((finding.level for finding in found), key=order.index, default="ok")
