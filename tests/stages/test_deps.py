"""What dvc.yaml says each stage depends on, against what the code imports and reads."""

import ast
import itertools
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from study_project import REPOSITORY, Project

from sglr.config.fields import ROOMS

STAGES = ("check", "prepare", "warmup", "train", "evaluate", "audit", "analyze", "report")
ORDER = (
    "config", "files", "processes", "random", "threat", "augmentations", "schedules", "models", "data", "attacks",
    "objectives", "labels", "weights", "training", "evaluation", "information", "report", "project", "exchange",
    "tracking", "presets", "doctor", "image_files", "predicting", "on_arrays", "terminal", "commands", "cli",
    "__main__",
)  # fmt: skip
# What surrounds the library call of every stage.
GLUE = ("runtime", "run", "pipeline", "tracked", "cleaning", "watch")
# config reads the options of components from their rooms' registries when params.yaml is loaded, whatever the stage.
COMPONENT_ROOMS = sorted(room.removeprefix("sglr.") for room in set(ROOMS.values()))


@cache
def modules() -> dict[str, Path]:
    """Dotted name -> file of everything in sglr."""
    found = {}
    for path in sorted((REPOSITORY / "sglr").rglob("*.py")):
        parts = path.relative_to(REPOSITORY).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def room_of(module: str) -> str:
    return module.split(".")[1]


def of_room(room: str) -> set[str]:
    return {name for name in modules() if name == f"sglr.{room}" or name.startswith(f"sglr.{room}.")}


def nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes that run, those in functions too; blocks under ``if TYPE_CHECKING`` do not."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        yield child
        yield from nodes(child)


def imported(path: Path) -> set[str]:
    """Dotted names that a file imports; of ``from a import b`` it is ``a.b``."""
    names: set[str] = set()
    for node in nodes(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@cache
def needed(path: Path) -> frozenset[str]:
    """Modules of sglr that run when a file is imported: those it names and their packages.

    The whole room where it takes a name from the room itself, which may load it lazily, and where it is a room that
    discovers its components.
    """
    found: set[str] = set()
    for name in imported(path):
        while name and name not in modules():
            name = name.rpartition(".")[0]
        if name not in ("", "sglr"):
            found |= of_room(room_of(name)) if name.count(".") == 1 else {name, name.rpartition(".")[0]}
    if "discover(__name__" in path.read_text():
        found |= of_room(path.parent.name)
    return frozenset(found)


def closure(path: Path) -> set[str]:
    """Modules of sglr that a file imports, directly or not."""
    reached: set[str] = set()
    waiting = set(needed(path))
    while waiting:
        module = waiting.pop()
        reached.add(module)
        waiting |= needed(modules()[module]) - reached
    return reached - of_room("tracking")


@cache
def pipeline() -> dict[str, Any]:
    return yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"]


def code_deps(stage: str) -> set[str]:
    return {dep for dep in pipeline()[stage]["deps"] if dep.startswith(("sglr/", "stages/"))}


# Rooms whose components a stage asks through the config, without importing them.
ASKED = {"report": ("augmentations", "schedules", "models", "objectives", "labels", "weights")}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_code_it_imports(stage):
    """Beyond the imports of the stage's file, every stage reads params through config.

    Left out on both sides: the files of GLUE, which only surround the library call, tracking, which reaches no output,
    and files that only export the names of a room of which one module is used.
    """
    modules_needed = closure(REPOSITORY / "stages" / f"{stage}.py") | of_room("config")
    for module in itertools.chain.from_iterable(map(of_room, ASKED.get(stage, ()))):
        modules_needed |= {module} | closure(modules()[module])
    expected = {f"stages/{stage}.py"}
    for room in {room_of(module) for module in modules_needed}:
        used = modules_needed & of_room(room)
        if used == of_room(room):
            package = (REPOSITORY / "sglr" / room).is_dir()
            expected.add(f"sglr/{room}" if package else f"sglr/{room}.py")
        else:
            expected |= {str(modules()[module].relative_to(REPOSITORY)) for module in used - {f"sglr.{room}"}}
    assert code_deps(stage) == expected


def test_rooms_import_only_rooms_above_them():
    for name, path in modules().items():
        for other in imported(path) if name != "sglr" else ():
            if other.startswith("sglr.") and room_of(other) in ORDER:
                assert room_of(name) in ORDER, f"{path} belongs to no room"
                assert ORDER.index(room_of(other)) <= ORDER.index(room_of(name)), f"{path} imports {other}"


def test_names_that_rooms_share_have_one_home():
    home = modules()["sglr.config.names"]
    shared = assigned(home)
    assert {"CHECKPOINTS", "WORST"} <= shared
    for path in modules().values():
        assert path == home or not assigned(path) & shared, path


def assigned(path: Path) -> set[str]:
    """Names given a value at a file's top level."""
    statements = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Assign | ast.AnnAssign)]
    return {node.id for one in statements for node in ast.walk(one) if isinstance(node, ast.Name)
            and isinstance(node.ctx, ast.Store)}  # fmt: skip


def test_what_may_be_imported_where():
    for name, path in modules().items():
        packages = {other.split(".")[0] for other in imported(path)}
        assert "stages" not in packages, path
        assert "dvc" not in packages, path
        assert "mlflow" not in packages or name.startswith("sglr.tracking"), path
    for path in (REPOSITORY / "stages").glob("*.py"):
        # Glue may be shared; the stages themselves do not know each other.
        taken = {other.split(".")[1] for other in imported(path) if other.startswith("stages.")}
        assert taken <= set(GLUE), path


LIGHT = ("import sglr", "import sglr.config, sglr.files, sglr.tracking", "from sglr.cli import main; main(['--help'])")


@pytest.mark.parametrize("code", LIGHT)
def test_nothing_heavy_is_imported_before_it_is_needed(code):
    """Torch and MLflow take seconds each."""
    heavy = "{'torch', 'mlflow', 'dvc', 'pandas'}"
    ask = f"import atexit, sys; atexit.register(lambda: print(sorted({heavy} & set(sys.modules))))\n{code}"
    ended = subprocess.run([sys.executable, "-c", ask], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] == "[]"


def test_importing_a_room_sets_nothing_for_all():
    """Seeds, threads and cudnn's flags belong to whoever runs the program."""
    look = (
        "import random, numpy, torch\n"
        "def state(): return (torch.initial_seed(), torch.get_num_threads(), torch.is_grad_enabled(),\n"
        "    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic, torch.get_default_dtype(),\n"
        "    torch.are_deterministic_algorithms_enabled(), str(numpy.random.get_state()), random.getstate())\n"
        "torch.manual_seed(3); before = state()\n"
        f"import {', '.join(modules())}\n"
        "assert state() == before\n"
    )
    ended = subprocess.run([sys.executable, "-c", look], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def bare(finished: Project, path: Path, stage: str) -> tuple[Project, dict[str, Any]]:
    """A folder with nothing but the deps of a stage (of sglr's item), and the item's entry of dvc.lock."""
    (entry,) = (finished.lock()[item] for item in (stage, f"{stage}@0", f"{stage}@sglr-0") if item in finished.lock())
    glue = ["params.yaml", "dvc.yaml", *(f"stages/{name}.py" for name in ("__init__", *GLUE))]
    glue += ["sglr/__init__.py", "sglr/tracking", "sglr/processes", "sglr/doctor/space.py", "sglr/project/items.py"]
    glue += ["sglr/doctor/__init__.py", "sglr/project/__init__.py"]
    # Loading params.yaml imports the rooms of components.
    glue += ["sglr/threat.py", "sglr/random.py", *(f"sglr/{room}" for room in COMPONENT_ROOMS)]
    extra = {
        # Tracking looks for the parent run by its history.
        "evaluate": ["artifacts/train/sglr-0/history.csv"],
        # The package around the one module that the report uses.
        "report": ["sglr/evaluation/__init__.py"],
    }
    for name in {*glue, *extra.get(stage, ()), *(dep["path"] for dep in entry["deps"])}:
        source, target = finished.path / name, path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        else:
            shutil.copy2(source, target)
    (path / ".sglr").mkdir()
    # What is missing is not to be found in an editable installation of this project.
    (path / "sitecustomize.py").write_text(
        "import sys\n"
        "sys.meta_path[:] = [it for it in sys.meta_path if getattr(it, '__name__', '') != '_EditableFinder']\n"
    )
    project = Project(path)
    project.environment["PYTHONPATH"] = str(path)
    return project, entry


@pytest.mark.slow
def test_stages_run_on_their_deps_alone(finished: Project, tmp_path: Path):
    """In a folder with nothing but its deps each stage makes the same outs: it reads no file that dvc.yaml omits.

    With the plain interpreter, so that nothing is loaded which the stage does not load itself, but for the two that
    train (test_kill starts those so).
    """
    folders = {stage: bare(finished, tmp_path / stage, stage) for stage in STAGES if stage != "check"}
    for stage in ("warmup", "train"):
        folders[stage][0].environment = finished.environment
    running = {stage: project.start(*entry["cmd"].split()) for stage, (project, entry) in folders.items()}
    for stage, (project, entry) in folders.items():
        assert running[stage].wait(300) == 0, project.said()
        for out in (out["path"] for out in entry["outs"]):
            compared = [path for path in [finished.path / out, *(finished.path / out).rglob("*")] if path.is_file()]
            assert compared, out
            for path in compared:
                assert (project.path / path.relative_to(finished.path)).read_bytes() == path.read_bytes(), path
