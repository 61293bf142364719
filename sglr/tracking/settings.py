"""Tracking settings from the environment: whether, where to, how long to wait. They are never logged."""

import contextlib
import functools
import importlib.util
import logging
import os
import re
from pathlib import Path

from sglr.config import ConfigError
from sglr.config.errors import UserError

LOG = logging.getLogger("sglr.tracking")
_DEFAULT_WAIT = "30"
_ASKED = ("on", "off", "required")
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # By default a dead server blocks a call for minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # MLflow samples every ten seconds, eight numbers and five of every GPU: stored each time, they would be nearly all
    # that a study of weeks stores.
    "MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING": "6",
}


class TrackingError(UserError, RuntimeError):
    """MLflow is missing, does not answer, or refuses; the message says which and why."""


def asked() -> str:
    """The setting of ``SGLR_TRACKING``: on (when empty or unset too), off or required; ConfigError otherwise."""
    found = os.environ.get("SGLR_TRACKING") or "on"
    if found.lower() not in _ASKED:
        raise ConfigError(f"SGLR_TRACKING={found!r} is not known; use on, off or required.")
    return found.lower()


def enabled() -> bool:
    """Whether runs are tracked: not with ``SGLR_TRACKING=off``, and not (warned once) where MLflow is missing."""
    if asked() == "off":
        return False
    if not installed():
        _warn_not_installed()
        return False
    return True


def required() -> bool:
    """Whether a run must not start without its tracking server: with ``SGLR_TRACKING=required``."""
    return asked() == "required"


def installed() -> bool:
    """Whether MLflow can be imported (it is not imported)."""
    return importlib.util.find_spec("mlflow") is not None


def prepare_environment() -> None:
    """MLflow's settings that must stand before it is imported; what the user has set stays."""
    for key, value in _ENVIRONMENT.items():
        os.environ.setdefault(key, value)


def address(root: Path) -> str:
    """``MLFLOW_TRACKING_URI``, or the database ``mlflow.db``; a relative path in it is one from the project's root.

    MLflow takes it from the working folder, which in a queued or temporary experiment is a copy that DVC removes.
    """
    asked = os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    if asked.startswith("sqlite:///") and re.search(r"\?|%[0-9A-Fa-f]{2}", str(root.resolve())):
        raise ConfigError(
            f"{root.resolve()} has a '?' or '%' in its name, which MLflow takes for a part of an address: rename the"
            " folder, or set SGLR_TRACKING=off"
        )
    return re.sub(r"^(sqlite:///|file:)(?![/:?]|$)", lambda found: f"{found[0]}{root.resolve()}/", asked)


def sqlite_file(uri: str) -> Path | None:
    """The file behind an SQLite address; None for a server or a database in memory."""
    path = uri.partition("?")[0].removeprefix("sqlite:///")
    return Path(path).absolute() if uri.startswith("sqlite:///") and path not in ("", ":memory:") else None


def shown(text: object) -> str:
    """One short line of ``text`` (an address, an error) without the credentials it may hold."""
    line = (str(text).strip().splitlines() or [""])[0]
    # Rather too much than too little: up to the last @, because a password may hold slashes.
    line = re.sub(r"://\S*@", "://", line)
    line = re.sub(r"(://[^\s?]+)\?\S+", r"\1", line)
    for key in ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"):
        if secret := os.environ.get(key):
            line = line.replace(secret, "***")
    # The end of a long message is the most informative part.
    return line if len(line) <= 300 else f"{line[:97]}...{line[-200:]}"


def wait_limit() -> float:
    """Seconds that a run waits at its end for its sender: ``SGLR_TRACKING_WAIT``, 30 when unset; else ConfigError."""
    asked = os.environ.get("SGLR_TRACKING_WAIT") or _DEFAULT_WAIT
    with contextlib.suppress(ValueError):
        if (seconds := float(asked)) >= 0:
            return seconds
    raise ConfigError(f"SGLR_TRACKING_WAIT={asked!r} is not a number of seconds.")


def system_metrics() -> bool:
    """Whether CPU, memory and GPU use are sent: not with ``SGLR_SYSTEM_METRICS=off``; ConfigError but for on, off."""
    asked = os.environ.get("SGLR_SYSTEM_METRICS") or "on"
    if asked.lower() not in ("on", "off"):
        raise ConfigError(f"SGLR_SYSTEM_METRICS={asked!r} is not known; use on or off.")
    return asked.lower() == "on"


@functools.cache
def _warn_not_installed() -> None:
    """Warn once that nothing is tracked."""
    LOG.warning("MLflow is not installed: runs are not tracked. Install mlflow, or set SGLR_TRACKING=off.")
