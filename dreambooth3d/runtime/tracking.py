"""MLflow: runs, curves, artifacts and registered adapters.

The embedded default is SQLite and a folder beside the artifacts; `MLFLOW_TRACKING_URI` names a real
server instead. One process of a stage writes, so an embedded store is never locked by workers.
"""

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from dreambooth3d.artifacts.key import exclusive
from dreambooth3d.artifacts.store import hide_keys

SERVING_ALIAS = "serving"
_SCORE_TAG = "score"
_BATCH = 1000


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One finished run to record.

    Attributes:
        name: shown in the list of runs.
        params, tags: as text.
        curves: metric name to its value after each step, or to values by step.
        metrics: single numbers.
        folder: artifact folder to log, as `folder_name`; None logs none.
        model: registered-model name that gets a version, and the `serving` alias with it unless
            the version that has it scored better; None registers nothing.
        score: of the model, higher is better; None where it is not measured: it then serves unless
            a version with a score does.
        is_failed: mark the run as failed.
    """

    name: str
    params: Mapping[str, object]
    tags: Mapping[str, str] = field(default_factory=dict)
    curves: Mapping[str, Sequence[float] | Mapping[int, float]] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    folder: Path | None = None
    folder_name: str = "adapter"
    model: str | None = None
    score: float | None = None
    is_failed: bool = False


@contextmanager
def recording(report: Callable[[str], None]) -> Iterator[None]:
    """Let a stage end well without its tracking server; the next run records what is missing."""
    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        # Web errors are of OSError. A database says what failed at length, with its statement.
        lines = hide_keys(str(error), os.environ.get("MLFLOW_TRACKING_URI", "")).splitlines()
        told = lines[0] if lines else type(error).__name__
        report(f"MLflow could not be written, run the command again to record it later: {told}")


class Tracker:
    """Write runs to one MLflow experiment.

    Args:
        root: folder of the embedded store, used where `MLFLOW_TRACKING_URI` is not set.
        experiment: created when it does not exist.
    """

    def __init__(self, root: Path, experiment: str) -> None:
        for name in ("alembic", "mlflow"):
            logging.getLogger(name).setLevel(logging.WARNING)
        # A server that is away is found out in seconds, not minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        location = None
        if not uri:
            root.mkdir(parents=True, exist_ok=True)
            uri = f"sqlite:///{root.resolve() / 'mlflow.db'}"
            location = (root.resolve() / "mlartifacts" / experiment).as_uri()
        self.uri = uri
        # Two processes that make the tables of a new store at once break each other.
        with exclusive(root, "mlflow"):
            try:
                self._client = MlflowClient(tracking_uri=uri, registry_uri=uri)
                self._experiment: str = self._open(experiment, location)
            except (ImportError, ValueError) as error:
                raise MlflowException(
                    f"MLFLOW_TRACKING_URI must be one that MLflow opens here, got: {error}; "
                    "correct it, or install the driver of its database"
                ) from error

    def _open(self, experiment: str, location: str | None) -> str:
        found = self._client.get_experiment_by_name(experiment)
        if found is not None:
            return str(found.experiment_id)
        return str(self._client.create_experiment(experiment, artifact_location=location))

    def start(
        self,
        name: str,
        tags: Mapping[str, str],
        parent: str | None = None,
        *,
        unique: Sequence[str] = (),
        keeps_finished: bool = False,
    ) -> str:
        """Open a run and return its id.

        Args:
            name: shown in the list of runs.
            tags: of the run.
            parent: its id.
            unique: names of tags; a run with the same values of these is gone on with.
            keeps_finished: not with one that has finished.
        """
        known = {name: tags[name] for name in unique}
        if known and (found := self.find(known, is_finished=False if keeps_finished else None)):
            for tag, value in tags.items():
                self._client.set_tag(found, tag, value)
            return found
        own = {"mlflow.runName": name, **tags}
        if parent is not None:
            own["mlflow.parentRunId"] = parent
        run_id: str = self._client.create_run(self._experiment, tags=own).info.run_id
        return run_id

    def record(
        self, record: RunRecord, *, parent: str | None = None, unique: Sequence[str] = ()
    ) -> str:
        """Write one finished run whole; returns its id. `unique` is that of `start`."""
        run_id = self.start(
            record.name, record.tags, parent, unique=unique, keeps_finished=record.is_failed
        )
        self._client.log_batch(
            run_id, params=[Param(k, str(v)[:6000]) for k, v in record.params.items()]
        )
        points = [
            Metric(name, float(value), 0, step)
            for name, values in record.curves.items()
            for step, value in _by_step(values)
        ]
        points += [Metric(name, float(value), 0, 0) for name, value in record.metrics.items()]
        for start in range(0, len(points), _BATCH):
            self._client.log_batch(run_id, metrics=points[start : start + _BATCH])
        if record.folder is not None:
            self._client.log_artifacts(run_id, str(record.folder), record.folder_name)
        if record.model is not None:
            self._register(record.model, run_id, record.score)
        self.finish(run_id, is_failed=record.is_failed)
        return run_id

    def finish(self, run_id: str, *, is_failed: bool = False) -> None:
        """Close a run."""
        self._client.set_terminated(run_id, "FAILED" if is_failed else "FINISHED")

    def find(self, tags: Mapping[str, str], *, is_finished: bool | None = True) -> str | None:
        """Find a run with these tags: one that has finished, has not, or (None) any."""
        clauses = [f"tags.`{name}` = '{value}'" for name, value in tags.items()]
        if is_finished is not None:
            clauses.append(f"attributes.status {'=' if is_finished else '!='} 'FINISHED'")
        runs: Any = self._client.search_runs(
            [self._experiment], filter_string=" and ".join(clauses), max_results=1
        )
        return runs[0].info.run_id if runs else None

    def _register(self, model: str, run_id: str, score: float | None) -> None:
        try:
            self._client.get_registered_model(model)
        except MlflowException:
            self._client.create_registered_model(model)
        # A run that was ended too early may have its version already.
        versions = self._client.search_model_versions(f"name = '{model}' and run_id = '{run_id}'")
        if versions:
            version = versions[0].version
        else:
            source = f"{self._client.get_run(run_id).info.artifact_uri}/adapter"
            tags = {} if score is None else {_SCORE_TAG: repr(score)}
            made = self._client.create_model_version(model, source, run_id=run_id, tags=tags)
            version = made.version
        served = self._served_score(model)
        if served is None or (score is not None and score >= served):
            self._client.set_registered_model_alias(model, SERVING_ALIAS, version)

    def _served_score(self, model: str) -> float | None:
        """Score of the version that serves; None without one, or without a score."""
        aliases = self._client.get_registered_model(model).aliases
        if SERVING_ALIAS not in aliases:
            return None
        version = self._client.get_model_version(model, aliases[SERVING_ALIAS])
        found = version.tags.get(_SCORE_TAG)
        return None if found is None else float(found)


def _by_step(values: Sequence[float] | Mapping[int, float]) -> Iterable[tuple[int, float]]:
    return values.items() if isinstance(values, Mapping) else enumerate(values, start=1)
