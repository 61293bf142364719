"""What keeps a run from working on this machine, or for this user: each function says it, or '' where all is well."""

import getpass
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

# Seconds that another program has to answer.
_PATIENCE = 20


def nameless() -> str:
    """Where the user has no name or home, as in a container that is run for a bare number."""
    try:
        getpass.getuser()
        Path.home()
    except (KeyError, OSError, RuntimeError) as error:
        todo = "set USER to any name, and HOME to a folder that can be written to"
        return f"DVC will stop, because this user has no name or home: {todo} ({error})"
    return ""


def safe_path() -> str:
    """Where Python does not look for modules in the project."""
    if os.environ.get("PYTHONSAFEPATH"):
        return "PYTHONSAFEPATH keeps `python -m stages...` from finding the stages: unset it"
    return ""


def other_python() -> str:
    """Where ``python``, as which DVC starts stages, is not of this environment."""
    found = _said("python", "-c", "import sys; print(sys.prefix)").stdout.strip()
    if found and os.path.realpath(found) == os.path.realpath(sys.prefix):
        return ""
    named = f"that of {found}" if found else "not found"
    todo = f"activate the environment ({sys.prefix}); `make repro` does by itself"
    return f"`dvc repro` starts stages as `python`, which is {named}: {todo}"


def useless_gpu() -> str:
    """Why torch sees no GPU although one is here and not hidden on purpose; '' where that is not so."""
    import torch

    shown = os.environ.get("CUDA_VISIBLE_DEVICES", "0")
    if os.environ.get("SGLR_DEVICE") == "cpu" or shown in ("", "NoDevFiles") or shown.startswith("-"):
        return ""
    if torch.backends.mps.is_available():
        return "Apple's GPU is not used: it has no float64, which training sums in"
    listed = _said("nvidia-smi", "-L").stdout
    if not listed.startswith("GPU "):
        return ""
    built = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
    return (
        f"{listed.splitlines()[0]} is here, but torch {torch.__version__}, which is built {built}, cannot use it: its"
        " driver or the GPU may be too old for that (https://pytorch.org names other builds)"
    )


def no_compiler() -> str:
    """What Triton builds its launcher with and does not find."""
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        return "a C compiler (gcc or clang)"
    header = Path(sysconfig.get_path("include")) / "Python.h"
    return "" if header.is_file() else f"Python's headers ({header}; python3-dev on Debian)"


def no_repository(root: Path) -> str:
    """DVC needs a git repository around its project, unless it was told that there is none."""
    if _in_git(root):
        return ""
    settings = [path.read_text() for path in (root / ".dvc").glob("config*")]
    if any(re.search(r"^\s*no_scm\s*=\s*true", text, re.MULTILINE | re.IGNORECASE) for text in settings):
        return ""
    return f"{root.resolve()} is in no git repository, which DVC needs: clone the project, or `git init`"


def mute_git(root: Path) -> str:
    """Where git tells nothing of the repository, such as one that it takes for another user's."""
    asked = _said("git", "-C", str(root), "rev-parse")
    if not _in_git(root) or not asked.returncode:
        return ""
    return f"runs are recorded without their commit: {' '.join(asked.stderr.split())}"


def _in_git(root: Path) -> bool:
    return any((folder / ".git").exists() for folder in (root.resolve(), *root.resolve().parents))


def _said(*command: str) -> subprocess.CompletedProcess[str]:
    """What a command prints; nothing where there is none, or it does not end."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return subprocess.CompletedProcess(command, 0, "", "")
