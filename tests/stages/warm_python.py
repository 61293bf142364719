"""A ``python`` and a ``dvc`` that start at once, from a process that has the heavy libraries loaded already.

Importing torch costs seconds and these tests start more than a hundred stages. ``serve`` loads third-party libraries,
never the project's own code, and forks for every ``dvc`` and ``python -m stages.<name>`` that the commands in
``start``'s folder are asked for. The tests of killing and of a first run from nothing use the plain commands.
"""

import atexit
import contextlib
import importlib
import json
import os
import runpy
import select
import shutil
import socket
import subprocess
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import Any, NoReturn

LIBRARIES = (
    # Of stages.
    "torch", "torch._dynamo", "torch._decomp.decompositions_for_jvp", "numpy", "pydantic", "yaml", "click", "tqdm",
    "filelock", "safetensors.torch", "psutil", "jinja2", "scipy.optimize", "sklearn.datasets", "matplotlib.figure",
    "matplotlib.backends.backend_svg", "mlflow.tracking", "sqlalchemy",
    # Of dvc.
    "ruamel.yaml", "networkx", "pygtrie", "flufl.lock", "zc.lockfile", "scmrepo.git", "dvc.cli", "dvc.cli.parser",
    "dvc.commands.repro", "dvc.repo.reproduce", "dvc.repo.index", "dvc.repo.open_repo", "dvc.repo.params",
    "dvc.repo.metrics", "dvc.repo.plots", "dvc.repo.stage", "dvc.stage.cache", "dvc.parsing", "dvc.output",
    "dvc.dependency", "dvc.cachemgr", "dvc.data_cloud", "dvc.rwlock", "dvc.lock", "dvc.scm", "dvc.utils.strictyaml",
    "dvc_data.index", "dvc_data.hashfile.db.local",
)  # fmt: skip


def start(folder: Path, *, while_lives: int, then_remove: Path) -> subprocess.Popen[bytes]:
    """Put the commands into ``folder``/bin and start their server, which lasts as long as a process does.

    The server is not waited for: the commands do that, so that it can load while something else goes on.
    """
    address = folder / "socket"
    (folder / "bin").mkdir(parents=True)
    for name, first in (("python", ""), ("dvc", "-m dvc ")):
        command = folder / "bin" / name
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "{__file__}" "{address}" {first}"$@"\n')
        command.chmod(0o755)
    environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "OMP_WAIT_POLICY": "PASSIVE"}
    call = [sys.executable, __file__, "--serve", str(address), str(while_lives), str(then_remove)]
    return subprocess.Popen(call, stdin=subprocess.DEVNULL, env=environment)


def serve(address: str, while_lives: int, then_remove: str) -> None:
    """Load the libraries, then fork for every connection until the process ``while_lives`` is gone."""
    for name in LIBRARIES:
        with contextlib.suppress(ImportError), warnings.catch_warnings(action="ignore"):
            importlib.import_module(name)
    import psutil

    # A stage finds the files of its own project, and not what it lacks in an editable installation of this one.
    sys.meta_path[:] = [finder for finder in sys.meta_path if getattr(finder, "__name__", "") != "_EditableFinder"]
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address + ".new")
        listener.listen(8)
        Path(address + ".new").rename(address)
        while psutil.pid_exists(while_lives):
            if not select.select([listener], [], [], 1)[0]:
                continue
            connection = listener.accept()[0]
            if os.fork() == 0:
                listener.close()
                _become(connection)
            connection.close()
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
    shutil.rmtree(then_remove, ignore_errors=True)


def _become(connection: socket.socket) -> NoReturn:
    """In the forked child: be the ``python -m module`` that was asked for, report its exit status, end."""
    message, descriptors, _, _ = socket.recv_fds(connection, 1 << 20, 3)
    while not message.endswith(b"\n"):
        message += connection.recv(1 << 20)
    asked: dict[str, Any] = json.loads(message)
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    sys.path[0] = asked["cwd"]
    sys.argv = asked["arguments"]
    status: Any = 0
    try:
        runpy.run_module(asked["module"], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int | None) else 1
    except BaseException:
        traceback.print_exc()
        status = 1
    with contextlib.suppress(Exception):
        atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    connection.sendall(str(status or 0).encode())
    os._exit(0)


def _ask(address: str, arguments: list[str]) -> int:
    """The command itself: hand the call over and wait; anything else goes to the plain interpreter."""
    if arguments[:1] != ["-m"] or not arguments[1].startswith(("stages.", "dvc")):
        os.execv(sys.executable, [sys.executable, *arguments])
    asked = {
        "module": arguments[1], "arguments": arguments[1:], "cwd": str(Path.cwd()), "environment": dict(os.environ),
    }  # fmt: skip
    deadline = time.monotonic() + 120
    while not Path(address).exists():
        assert time.monotonic() < deadline, f"nobody serves {address}"
        time.sleep(0.02)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        message = json.dumps(asked).encode() + b"\n"
        sent = socket.send_fds(connection, [message], [0, 1, 2])
        connection.sendall(message[sent:])
        return int(connection.recv(16) or 137)


if __name__ == "__main__":
    if sys.argv[1] == "--serve":
        serve(sys.argv[2], int(sys.argv[3]), sys.argv[4])
    else:
        sys.exit(_ask(sys.argv[1], sys.argv[2:]))
