"""Trains uploaded subjects: claims a row, runs the personalize stage in a Ray task, reports."""

import logging
import re
import shutil
import threading
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from sqlalchemy.exc import SQLAlchemyError

from dreambooth3d.artifacts.adapter import find_adapter
from dreambooth3d.artifacts.image import list_images
from dreambooth3d.artifacts.subject import Subject
from dreambooth3d.errors import Dreambooth3dError, RunError
from dreambooth3d.personalize import job
from dreambooth3d.personalize.config import PersonalizeConfig
from dreambooth3d.personalize.keys import STAGE
from serve.settings import ServeSettings
from serve.trainings import Training, TrainingTable

_logger = logging.getLogger(__name__)
# What a command line's user is told to do is nothing that a client can do.
_REMEDY = "send sharp photos on a plain ground, pictures with alpha, or references on white"
# The way to a file, up to its name.
_PATH = re.compile(r"/(?:[^\s/]+/)+")
# A shared MLflow would show everybody a client's pictures, and keep them when they are deleted.
_OWN_STORE = {"env_vars": {"MLFLOW_TRACKING_URI": ""}}
_LEASE_S = 60.0
_LOOK_S = 1.0
_STOP_S = 10.0


class Trainer:
    """One training at a time; the task itself may use every worker that Ray has."""

    def __init__(self, settings: ServeSettings) -> None:
        self._settings = settings
        self._table = TrainingTable(settings.database_url)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="trainer", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise a `RunError` when the thread has died."""
        if not self._stopping.is_set() and not self._thread.is_alive():
            raise RunError("the trainer's thread must be running, got ended; restart it")

    def stop(self) -> None:
        """Give a running training back; its checkpoint stays."""
        self._stopping.set()
        self._thread.join(_STOP_S)

    def _work(self) -> None:
        while not self._stopping.wait(_LOOK_S):
            try:
                training = self._table.claim(lease_s=_LEASE_S)
                if training is not None:
                    self._train(training)
            except SQLAlchemyError:
                _logger.exception("the table of trainings cannot be used; trying again")

    def _train(self, training: Training) -> None:
        _logger.info("subject %s: training begins", training.id)
        task = ray.remote(num_cpus=0, max_retries=0, runtime_env=_OWN_STORE)(personalize).remote(
            self._settings, training
        )
        if not self._watch(training, task):
            ray.cancel(task, force=True, recursive=True)
            if self._stopping.is_set():
                self._table.release(training)
            ray.wait([task], timeout=_STOP_S)
            self._forget_deleted(training)
            return
        try:
            error = ray.get(task)
        except RayError as failure:
            _logger.exception("subject %s", training.id)
            if not isinstance(failure, RayTaskError) or isinstance(failure.cause, RayError):
                # Worker, node or head is gone. The lease runs out, and whoever claims it then goes
                # on from the checkpoint; the table counts how often.
                return
            error = "a training must end, got an unforeseen error; ask the operator"
        self._table.finish(training, error=error)
        self._forget_deleted(training)
        _logger.info("subject %s: training ended, %s", training.id, error or "ready")

    def _forget_deleted(self, training: Training) -> None:
        """Remove what was still made of photos whose subject is deleted."""
        if self._table.get(training.id) is None:
            shutil.rmtree(self._settings.uploaded_root / training.id, ignore_errors=True)

    def _watch(self, training: Training, task: Any) -> bool:
        """Wait for the end; False when the subject is no longer wanted or we have to go."""
        while not ray.wait([task], timeout=_LOOK_S)[0]:
            if self._stopping.is_set() or not self._table.extend(training, lease_s=_LEASE_S):
                return False
        return True


def training_config(settings: ServeSettings) -> PersonalizeConfig:
    """How uploaded subjects are trained."""
    return PersonalizeConfig(
        backbone=settings.backbone,
        steps=settings.subject_steps,
        # One subject: a second worker would only wait for a core beside the engines.
        workers=1,
        method="joint" if settings.pretrained else "3dreambooth",
    )


def pretrained_of(settings: ServeSettings) -> Path | None:
    """The 3Dapter they start from; None without references."""
    return find_adapter(settings.pretrained) if settings.pretrained else None


def personalize(settings: ServeSettings, training: Training) -> str | None:
    """Train one subject as `personalize_batch` does; return why it failed, None when it did not."""
    photos = settings.uploads_root / training.id
    try:
        subject = Subject(
            id=training.id,
            class_noun=training.class_noun,
            images=list_images(photos / "images"),
            references=list_images(photos / "references"),
        )
        report = ProgressNotes(TrainingTable(settings.database_url), training)
        _, (outcome,) = job.run(
            training_config(settings),
            [subject],
            pretrained_of(settings),
            settings.uploaded_root / training.id / STAGE,
            report=report,
        )
    except Dreambooth3dError:
        _logger.exception("subject %s", training.id)
        return "a subject must be trainable on this server, got a refusal; ask the operator"
    # A client learns nothing of where things are.
    problem = _PATH.sub("", outcome.error.partition("; ")[0])
    return f"{problem}; {_REMEDY}" if problem else None


class ProgressNotes:
    """Hears the lines of a training and notes how far it is.

    A table that cannot be written for a moment is no reason to end a training.
    """

    def __init__(self, table: TrainingTable, training: Training) -> None:
        self._table, self._training = table, training
        self._step = re.compile(rf"{re.escape(training.id)} (\d+)/(\d+) loss")

    def __call__(self, line: str) -> None:
        """Hear one line."""
        _logger.info(line)
        found = self._step.search(line)
        if found is None:
            return
        try:
            self._table.advance(self._training, step=int(found[1]), steps=int(found[2]))
        except SQLAlchemyError:
            _logger.exception("subject %s: its progress cannot be noted", self._training.id)
