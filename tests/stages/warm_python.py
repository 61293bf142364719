"""A ``python`` and a ``dvc`` that start at once, from a process that has the heavy libraries loaded already.

Importing torch costs seconds and these tests start more than a hundred stages. ``serve`` loads third-party libraries,
never the project's own code, and forks for every ``dvc`` and ``python -m stages.<name>`` that the commands in
``install``'s folder are asked for. The tests of killing and of a first run from nothing use the plain commands.
"""

import atexit
import contextlib
import importlib
import json
import os
import runpy
import select
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

LIBRARIES = (
    # Of stages.
    "torch", "torch._dynamo", "torch._decomp.decompositions_for_jvp", "numpy", "pydantic", "yaml", "click", "tqdm",
    "filelock", "safetensors.torch", "psutil", "jinja2", "sklearn.datasets", "matplotlib.figure",
    "matplotlib.backends.backend_svg", "mlflow.tracking", "sqlalchemy",
    # Of dvc.
    "ruamel.yaml", "networkx", "pygtrie", "flufl.lock", "zc.lockfile", "scmrepo.git", "dvc.cli", "dvc.cli.parser",
    "dvc.commands.repro", "dvc.repo.reproduce", "dvc.repo.index", "dvc.repo.open_repo", "dvc.repo.params",
    "dvc.repo.metrics", "dvc.repo.plots", "dvc.repo.stage", "dvc.stage.cache", "dvc.parsing", "dvc.output",
    "dvc.dependency", "dvc.cachemgr", "dvc.data_cloud", "dvc.rwlock", "dvc.lock", "dvc.scm", "dvc.utils.strictyaml",
    "dvc_data.index", "dvc_data.hashfile.db.local",
)  # fmt: skip


@contextlib.contextmanager
def install(folder: Path) -> Iterator[Path]:
    """Put the commands into ``folder``/bin and keep their server alive; yields that bin folder.

    The server is not waited for: the commands do that, so that it can load while something else goes on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    address = folder / "socket"
    (folder / "bin").mkdir()
    for name, first in (("python", ""), ("dvc", "-m dvc ")):
        command = folder / "bin" / name
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "{__file__}" "{address}" {first}"$@"\n')
        command.chmod(0o755)
    environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "OMP_WAIT_POLICY": "PASSIVE"}
    call = [sys.executable, __file__, "--serve", str(address)]
    # The server ends when this end of the pipe closes, however the tests end.
    with subprocess.Popen(call, stdin=subprocess.PIPE, env=environment) as server:
        yield folder / "bin"
        assert server.stdin is not None
        server.stdin.close()


def serve(address: str) -> None:
    """Load the libraries, then fork for every connection until stdin closes."""
    for name in LIBRARIES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    # A stage finds the files of its own project, and not what it lacks in an editable installation of this one.
    sys.meta_path[:] = [finder for finder in sys.meta_path if getattr(finder, "__name__", "") != "_EditableFinder"]
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address + ".new")
        listener.listen(8)
        Path(address + ".new").rename(address)
        while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
            connection = listener.accept()[0]
            if os.fork() == 0:
                listener.close()
                _become(connection)
            connection.close()
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass


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
        serve(sys.argv[2])
    else:
        sys.exit(_ask(sys.argv[1], sys.argv[2:]))
