"""The tracking server (or the local database) as the few operations that sending needs. All MLflow imports are here."""

import contextlib
import logging
import re
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sglr import files
from sglr.tracking.journal import safe
from sglr.tracking.settings import LOG, address, prepare_environment, shown, sqlite_file

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

Point = tuple[str, float, int, int]
"""Name, value, timestamp in milliseconds, step."""

JOURNAL_TAG = "sglr.journal"
PARENT_TAG = "mlflow.parentRunId"
_METRICS_A_CALL = 1000
_OTHERS_A_CALL = 100
# Error codes of a request that will never succeed; everything else is worth another attempt.
_REFUSALS = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST")
_CREATION_WAIT = 60.0


class RunGoneError(RuntimeError):
    """The run ``run_id`` was deleted on the server while we were sending to it."""

    def __init__(self, run_id: str) -> None:
        super().__init__(f"run {run_id} was deleted on the tracking server")
        self.run_id = run_id


# So that MLflow's UI opens the experiment with its runs and curves, not with the views for language models.
_EXPERIMENT = {"mlflow.experimentKind": "custom_model_development"}


class Server:
    """A connected server. Methods raise whatever MLflow raises; ``connect`` makes one."""

    def __init__(self, client: "MlflowClient", uri: str) -> None:
        self._client = client
        self.uri = uri

    def check(self) -> None:
        """One cheap request; it creates a local database that does not exist."""
        self._client.search_experiments(max_results=1)

    def find(self, name: str) -> str | None:
        """Id of the experiment; None where there is none, or it was deleted."""
        found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id) if found is not None and found.lifecycle_stage == "active" else None

    def experiment(self, name: str) -> str:
        """Id of the experiment, created when it is new."""
        with _creation_lock(self.uri):
            database = sqlite_file(self.uri)
            # Left to itself MLflow would write artifacts of a local database into the working directory.
            location = (database.parent / "mlartifacts" / safe(name)).as_uri() if database else None
            found = self._client.get_experiment_by_name(name)
            if found is not None:
                if found.lifecycle_stage == "deleted":
                    raise RuntimeError(
                        f"the experiment {name} was deleted in MLflow: `mlflow experiments restore -x"
                        f" {found.experiment_id}` restores it, or use another experiment.name"
                    )
                self._say_if_moved(found, location)
                return str(found.experiment_id)
            try:
                return str(self._client.create_experiment(name, artifact_location=location, tags=_EXPERIMENT))
            except Exception:
                # Somebody on another machine may have been faster.
                if (found := self._client.get_experiment_by_name(name)) is None:
                    raise
                return str(found.experiment_id)

    def _say_if_moved(self, experiment: Any, location: str | None) -> None:
        """Warn where files go next to a database that this one is a copy of; one the user chose is left alone."""
        kept = str(experiment.artifact_location)
        ours = f"/mlartifacts/{safe(experiment.name)}"
        if location and kept != location and kept.startswith("file:") and kept.endswith(ours):
            LOG.warning(
                "files of the experiment %s go to %s, because %s was copied or moved and MLflow keeps the location."
                " Another experiment.name, or a new database, gets its own location.",
                experiment.name, shown(kept), sqlite_file(self.uri),
            )  # fmt: skip

    def create(self, experiment_id: str, name: str, started: int, tags: Mapping[str, str]) -> str:
        """Id of a new run in the status RUNNING."""
        run = self._client.create_run(experiment_id, start_time=started, tags=dict(tags), run_name=name)
        return str(run.info.run_id)

    def newest(self, experiment_id: str, tags: Mapping[str, str], status: str | None = None) -> str | None:
        """Id of the run that started last among those with these tags (and status); None when there is none."""
        # MLflow's filter language cannot express every text; what it cannot say is compared here.
        parts = [f"tags.`{key}` = '{value}'" for key, value in tags.items() if re.fullmatch(r"[\w.@=+-]*", value)]
        parts += [f"attributes.status = '{status}'"] if status else []
        runs = self._client.search_runs([experiment_id], " and ".join(parts), order_by=["attributes.start_time DESC"])
        for run in runs:
            if all(run.data.tags.get(key) == value for key, value in tags.items()):
                return str(run.info.run_id)
        return None

    def status(self, run_id: str) -> str | None:
        """The run's status; None when it was deleted or never was on this server."""
        try:
            info = self._client.get_run(run_id).info
        except Exception as error:
            if getattr(error, "error_code", None) == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        return str(info.status) if info.lifecycle_stage == "active" else None

    def set_status(self, run_id: str, status: str, ended: int | None = None) -> None:
        """Set the status; a final one also needs the time (ms) at which the run ended."""
        if ended is None:
            self._client.update_run(run_id, status=status)
        else:
            self._client.set_terminated(run_id, status, end_time=ended)

    def stored(self, run_id: str, metric: str) -> set[tuple[int, int]]:
        """(step, timestamp) of every point of one metric that the server has."""
        return {(point.step, point.timestamp) for point in self._client.get_metric_history(run_id, metric)}

    def log(
        self,
        run_id: str,
        *,
        metrics: Sequence[Point] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Store points, params and tags, in as many calls as MLflow's limits ask for.

        What the server refuses for good (a value it cannot store) is left out with a warning. Raises RunGoneError when
        the run is no longer there.
        """
        from mlflow.entities import Metric, Param, RunTag

        self._batches(run_id, "params", [Param(*pair) for pair in (params or {}).items()], _OTHERS_A_CALL)
        self._batches(run_id, "tags", [RunTag(*pair) for pair in (tags or {}).items()], _OTHERS_A_CALL)
        self._batches(run_id, "metrics", [Metric(*point) for point in metrics], _METRICS_A_CALL)

    def _batches(self, run_id: str, kind: str, entities: list[Any], most: int) -> None:
        for first in range(0, len(entities), most):
            self._batch(run_id, kind, entities[first : first + most])

    def _batch(self, run_id: str, kind: str, entities: list[Any]) -> None:
        try:
            # MLflow's asynchronous logging would return before anything is stored.
            self._client.log_batch(run_id, **{kind: entities}, synchronous=True)
        except Exception as error:
            if getattr(error, "error_code", None) not in _REFUSALS:
                raise
            if self.status(run_id) is None:
                raise RunGoneError(run_id) from None
            if len(entities) == 1:
                LOG.warning("MLflow refuses %s %r: %s", kind, entities[0].key, shown(error))
                return
            middle = len(entities) // 2
            self._batch(run_id, kind, entities[:middle])
            self._batch(run_id, kind, entities[middle:])

    def artifact(self, run_id: str, path: Path, folder: str | None) -> None:
        """Upload a file into ``folder``, or the contents of a folder (into its own name when ``folder`` is None)."""
        if path.is_dir():
            self._client.log_artifacts(run_id, str(path), folder or path.name)
        else:
            self._client.log_artifact(run_id, str(path), folder)


def connect(root: Path) -> Server:
    """Import MLflow (seconds) and reach the server, creating the database where it is a local one that does not exist.

    Raises whatever MLflow raises when there is no answer.
    """
    prepare_environment()
    from mlflow.tracking import MlflowClient

    # The sender reports a failing server once.
    for name in ("mlflow.store.db.utils", "mlflow.system_metrics.system_metrics_monitor", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(logging.ERROR)
    uri = address(root)
    with _creation_lock(uri):
        database = sqlite_file(uri)
        if database is not None and not database.exists():
            _create(database)
        server = Server(MlflowClient(tracking_uri=uri), uri)
        server.check()
    return server


def _create(database: Path) -> None:
    """A new SQLite database, complete or not at all: MLflow cannot use what a full disk or a kill leaves of one."""
    from mlflow.tracking import MlflowClient

    # Another name at every attempt: MLflow remembers the one before, whatever became of its file.
    unfinished = database.with_name(f"{database.name}.new-{secrets.token_hex(4)}")

    def clear() -> None:
        for left in database.parent.glob(f"{database.name}.new-*"):  # SQLite's journal among them
            left.unlink(missing_ok=True)

    clear()
    try:
        uri = f"sqlite:///{unfinished}"
        Server(MlflowClient(tracking_uri=uri), uri).check()
        unfinished.replace(database)
    finally:
        clear()


def _creation_lock(uri: str) -> contextlib.AbstractContextManager[None]:
    """Two processes that create an SQLite database, or an experiment in it, at once: without this one of them fails."""
    database = sqlite_file(uri)
    if database is None:
        return contextlib.nullcontext()
    return files.lock(database.with_name(f"{database.name}.lock"), timeout=_CREATION_WAIT, holder="another run")
