"""What ``import sglr`` offers: names that can be found, and modules that are not hidden by functions of their name."""

import ast
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import sglr
from sglr import files, processes, training
from sglr.config import errors
from sglr.config.errors import for_users

ROOT = Path(__file__).parents[1]


def test_names_can_be_found():
    assert {"attacks", "load_model", "robustness", "threat", "train", "UserError"} <= set(dir(sglr))
    assert all(getattr(sglr, name) is not None for name in dir(sglr))
    assert set(dir(sglr.evaluation)) == set(sglr.evaluation.__all__)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        sglr.trian  # noqa: B018


def test_what_a_user_can_put_right_has_one_base():
    for error in (
        sglr.config.ConfigError,
        errors.ModelError,
        files.FileError,
        processes.ProcessError,
        training.TrainingError,
    ):
        assert issubclass(error, sglr.UserError)


def compiling(error: Exception) -> Exception:
    """Raised from another error, as by torch's compiler."""
    found = RuntimeError("backend='inductor' raised")
    found.__cause__ = error
    return found


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (sglr.config.ConfigError("threat: missing."), "threat: missing."),
        (sglr.files.FileError("x\n\x1b[2Jµ − “\x9b\r”"), r"x" "\n" r"\x1b[2Jµ − “\x9b\r”"),  # a terminal obeys none
        (
            ModuleNotFoundError("no", name="none_such.part"),
            "none_such is not installed, which this needs: pip install none_such",
        ),
        (ModuleNotFoundError("no", name="torch.none_such"), None),
        (ModuleNotFoundError("no", name="sglr.nothing"), None),
        (ModuleNotFoundError("no", name=None), None),
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), "CUDA out of memory. To use less memory: a smaller"),
        (compiling(torch.OutOfMemoryError("CUDA out of memory. Tried")), "CUDA out of memory. To use less memory"),
        (RuntimeError("a bug"), None),
    ],
)
def test_what_is_no_bug_is_told_without_a_traceback(error, said):
    found = for_users(error)
    assert found == said if said is None else found.startswith(said)


def hidden() -> Iterator[tuple[str, str]]:
    """Package and name of modules whose package exports something else under their name."""
    for package in ("attacks", "config", "data", "evaluation", "information", "labels", "models", "training"):
        module = importlib.import_module(f"sglr.{package}")
        for found in pkgutil.iter_modules(module.__path__):
            if found.name in getattr(module, "__all__", ()):
                yield f"sglr.{package}", found.name


def test_no_module_of_ours_is_taken_for_the_function_of_its_name():
    """``from sglr.information import entropy`` is a module or a function, as the order of imports will have it."""
    risky = set(hidden())
    assert ("sglr.attacks", "pgd") in risky
    found = []
    for path in [*(ROOT / "sglr").rglob("*.py"), *(ROOT / "stages").glob("*.py")]:
        package = ".".join(path.relative_to(ROOT).parts[:-1])
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == package:
                found += [(path.name, alias.name) for alias in node.names if (package, alias.name) in risky]
    assert found == []
