"""Whether runs can be tracked from here, told before one starts."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from sglr import config
from sglr.tracking import server, settings
from sglr.tracking.resend import unsent

Found = tuple[Literal["ok", "warning", "problem"], str]
# Ports of servers whose address names none.
_PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}


def examine(root: Path) -> Iterator[Found]:
    """What a run would find, as level and text: its settings, where the database or server is, whether it answers."""
    try:
        off = settings.asked() == "off"
        settings.wait_limit()
        settings.system_metrics()
    except config.ConfigError as error:
        yield "problem", str(error)
        return
    if off:
        yield "ok", "off (SGLR_TRACKING)"
        return
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if not uri or uri.startswith("sqlite:"):
        yield _file(root)
    elif uri.partition(":")[0].partition("+")[0] in _PORTS:
        yield _server(root, uri)
    else:
        yield _asked(root, uri)
    left = unsent(root)
    if left:
        yield "warning", f"{left} runs not completely sent, or still running: `sglr sync` sends them"


def _server(root: Path, uri: str) -> Found:
    """Whether it is there and, but for databases, which MLflow waits for and fills with tables, whether it answers a
    question of MLflow's with the credentials at hand."""
    try:
        parts = urlsplit(uri)
        scheme = parts.scheme.partition("+")[0]
        host, port = parts.hostname or "", parts.port or _PORTS[scheme]
    except ValueError:  # not shown: it may hold a part of a password
        return _untracked(f"MLFLOW_TRACKING_URI={settings.shown(uri)} is no address")
    try:
        with socket.create_connection((host, port), 3):
            pass
        if not scheme.startswith("http"):
            return "ok", f"there is a server at {host}:{port}; the database was not asked"
        server.connect(root)
    except Exception as error:
        what = f"no server at {host}:{port}" if isinstance(error, OSError) else f"the server at {host}:{port} fails"
        return _untracked(f"{what} ({settings.shown(error)})")
    return "ok", f"an MLflow server answers at {host}:{port}"


def _file(root: Path) -> Found:
    """Where the database is, or whether it can be made there."""
    path = settings.sqlite_file(settings.address(root))
    if path is None:
        return "ok", "a database in memory"
    if not path.exists() and not os.access(path.parent, os.W_OK):
        return _untracked(f"{path} cannot be made: there is no folder {path.parent} that can be written to")
    return "ok", str(path)


def _asked(root: Path, uri: str) -> Found:
    """Whether MLflow takes a folder (newer versions refuse it unless MLFLOW_ALLOW_FILE_STORE is set), or what it is."""
    try:
        server.connect(root)
    except Exception as error:
        return _untracked(f"MLflow does not take {settings.shown(uri)} ({settings.shown(error)})")
    return "ok", f"MLflow takes {settings.shown(uri)}"


def _untracked(reason: str) -> Found:
    """What it means for runs that nothing can be sent."""
    if settings.required():
        return "problem", f"{reason}: no run starts without it (SGLR_TRACKING=required)"
    todo = "runs go on without it, and `sglr sync` sends later what is missing"
    return "warning", f"{reason}: {todo}"
