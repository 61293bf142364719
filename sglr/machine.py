"""What keeps a run from working on this machine, or for this user: each function says it, or '' where all is well."""

import getpass
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path


def nameless() -> str:
    """Where the user has no name or home, as in a container that is run for a bare number."""
    try:
        getpass.getuser(), Path.home()
    except (KeyError, OSError, RuntimeError) as error:
        todo = "set USER to any name, and HOME to a folder that can be written to"
        return f"DVC will stop, because this user has no name or home: {todo} ({error})"
    return ""


def other_python() -> str:
    """Stages are started as ``python -m stages...``: whether that is this environment, and finds them."""
    if os.environ.get("PYTHONSAFEPATH"):
        return "PYTHONSAFEPATH keeps `python -m stages...` from finding the stages: unset it"
    try:
        asked = ["python", "-c", "import sys; print(sys.prefix)"]
        found = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        found = ""
    if found == sys.prefix:
        return ""
    named = f"that of {found}" if found else "not found"
    return f"stages are started as `python`, which is {named}: activate the environment ({sys.prefix})"


def useless_gpu() -> str:
    """Of a GPU that is here and not hidden on purpose, why torch, which sees none, does not use it."""
    import torch

    if torch.backends.mps.is_available():
        return "Apple's GPU is not used: it has no float64, which training sums in"
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return ""
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
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
    if any((folder / ".git").exists() for folder in (root.resolve(), *root.resolve().parents)):
        return ""
    settings = [path.read_text() for path in (root / ".dvc").glob("config*")]
    if any(re.search(r"^\s*no_scm\s*=\s*true", text, re.MULTILINE | re.IGNORECASE) for text in settings):
        return ""
    return f"{root.resolve()} is in no git repository, which DVC needs: clone the project, or `git init`"


def mute_git(root: Path) -> str:
    """Where git tells nothing of the repository, such as one that it takes for another user's."""
    try:
        asked = subprocess.run(["git", "rev-parse"], cwd=root, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return f"runs are recorded without their commit: {asked.stderr.strip()}" if asked.returncode else ""
