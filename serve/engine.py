"""The engine: claims batches from the job table, denoises them, writes clips.

Two threads. The worker claims and runs one batch at a time; after every denoising step it reports
progress and drops the rows that are no longer its own (canceled, deleted, or lost). The keeper
renews leases between steps, as long as steps arrive, and sweeps what other engines left behind.
"""

import logging
import threading
import time
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from itertools import groupby

import torch
from sqlalchemy.exc import SQLAlchemyError

from dreambooth3d.errors import Dreambooth3dError, RunError
from dreambooth3d.generate.generate import (
    ClipRequest,
    Frames,
    LoadedSubject,
    generate_batch,
    load_subject,
)
from dreambooth3d.model.backbone import Backbone, load_backbone
from dreambooth3d.vision.threads import one_thread
from serve.adapters import AdapterCache, CacheFullError
from serve.batch import Row, StageTimer, clip_request, describe_adapter, provenance
from serve.jobs import JobTable
from serve.meters import Meters
from serve.orders import ClipOrder
from serve.records import Claim, Job
from serve.results import ResultStore
from serve.settings import ServeSettings
from serve.subjects import SubjectCatalog
from serve.sweep import Sweeper

_logger = logging.getLogger(__name__)
# What a bad job, a damaged adapter or a full device raises in the model: it must stay in its batch.
_BATCH_FAILURES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    Dreambooth3dError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
_RETRY_S = 1.0
_ABORT_S = 5.0


class Engine:
    """One backbone and the loop that serves it.

    Args:
        settings: bounds, leases and folders.
        backbone: loaded from `settings.backbone` unless given.
        jobs: opened from `settings.database_url` unless given.
    """

    def __init__(
        self,
        settings: ServeSettings,
        *,
        backbone: Backbone | None = None,
        jobs: JobTable | None = None,
    ) -> None:
        self._settings = settings
        # OpenMP gives each thread that computes a team of its own, and two teams in a process wait
        # for each other asleep: half the speed on two cores. The worker's is to be the only one.
        with one_thread():
            self._backbone = backbone or load_backbone(settings.backbone, device=settings.device)
        self._jobs = jobs or JobTable(settings.database_url)
        self._subjects = SubjectCatalog(*settings.subject_roots, uploads=settings.uploaded_root)
        self._results = ResultStore(settings.results_root)
        self._meters = Meters()
        self._sweeper = Sweeper(self._jobs, self._results, max_attempts=settings.max_attempts)
        self._adapters = AdapterCache(
            lambda folder: load_subject(folder, self._backbone),
            max_bytes=settings.adapter_megabytes * 2**20,
            on_look=self._meters.look,
        )
        self._stopping = threading.Event()
        self._aborting = threading.Event()
        self._closed = threading.Event()
        self._warm = threading.Event()
        self._token: str | None = None
        self._dropped: set[str] = set()
        self._stepped_at = time.monotonic()
        self._threads = [
            threading.Thread(target=self._work, name="engine-worker", daemon=True),
            threading.Thread(target=self._keep, name="engine-keeper", daemon=True),
        ]

    @property
    def is_warm(self) -> bool:
        """Whether a first clip has gone through the backbone."""
        return self._warm.is_set()

    def start(self) -> None:
        """Start both threads."""
        for thread in self._threads:
            thread.start()

    def stop(self, *, drain_s: float) -> None:
        """Claim nothing more; finish the running batch within `drain_s` or give its jobs back."""
        worker, keeper = self._threads
        is_working = worker.is_alive()
        self._stopping.set()
        if is_working:
            worker.join(drain_s)
            self._aborting.set()
            worker.join(_ABORT_S)
        self._closed.set()
        if keeper.is_alive():
            keeper.join(_ABORT_S)
        # Jobs of a worker that died come back when their lease ends, which counts as an attempt:
        # one of them may be what killed it.
        if is_working and self._token is not None:
            self._jobs.release(self._token)

    def check(self) -> None:
        """Raise a `RunError` when a thread has died or no step has ended for `stall_s`."""
        if self._stopping.is_set():
            return
        dead = [thread.name for thread in self._threads if not thread.is_alive()]
        if dead:
            raise RunError(f"engine threads must be running, got {dead[0]} ended; restart it")
        silent_s = time.monotonic() - self._stepped_at
        if self._token is not None and silent_s > self._settings.stall_s:
            raise RunError(
                f"a denoising step must end within {self._settings.stall_s} s, "
                f"got {silent_s:.0f} s without one; restart the engine"
            )

    def warm_up(self) -> None:
        """Send the smallest clip through the whole backbone."""
        card = self._backbone.card
        side = 2 * self._backbone.codec.token_side
        request = ClipRequest(
            prompt="warm up",
            subject=None,
            num_frames=1,
            width=side,
            height=side,
            flow_shift=card.flow_shift,
            num_steps=1,
        )
        generate_batch(self._backbone, [request])
        self._warm.set()

    def run_once(self) -> int:
        """Claim one batch and bring each of its jobs to an end; return how many there were."""
        settings = self._settings
        claim = self._jobs.claim(
            max_jobs=settings.max_batch,
            max_tokens=settings.max_batch_tokens,
            lease_s=settings.lease_s,
        )
        if claim is None:
            return 0
        self._stepped_at = time.monotonic()
        self._token = claim.token
        self._dropped.clear()
        with ExitStack() as pins:
            rows = [row for job in claim.jobs if (row := self._prepare(claim, job, pins))]
            rows.sort(key=lambda row: repr(row.clip.batch_key))
            for _, group in groupby(rows, key=lambda row: row.clip.batch_key):
                if not self._aborting.is_set():
                    self._run(claim.token, list(group))
        if self._aborting.is_set():
            self._jobs.release(claim.token)
        self._token = None
        return len(claim.jobs)

    def _work(self) -> None:
        self.warm_up()
        while not self._stopping.is_set():
            try:
                num_jobs = self.run_once()
            except (SQLAlchemyError, OSError):
                # The jobs come back when their lease ends; the engine outlives its database.
                _logger.exception("the job table cannot be used; trying again")
                self._token = None
                self._stopping.wait(_RETRY_S)
                continue
            if num_jobs == 0:
                self._stopping.wait(self._settings.poll_s)

    def _keep(self) -> None:
        settings = self._settings
        while not self._closed.wait(settings.lease_s / 4):
            token = self._token
            is_alive = time.monotonic() - self._stepped_at < settings.stall_s
            try:
                if token is not None and is_alive:
                    self._jobs.extend(token, lease_s=settings.lease_s)
                self._sweeper.run()
                num_jobs, age_s = self._jobs.queue_state()
                self._meters.queue(num_jobs=num_jobs, age_s=age_s)
            except (SQLAlchemyError, OSError):
                _logger.exception("the job table or the clips cannot be used; trying again")

    def _prepare(self, claim: Claim, job: Job, pins: ExitStack) -> Row | None:
        order = ClipOrder.from_json(job.request)
        try:
            loaded = self._load(order.subject, pins)
        except CacheFullError:
            self._jobs.release(claim.token, job.id)
            return None
        except (Dreambooth3dError, OSError, MemoryError, torch.OutOfMemoryError) as error:
            # Whatever is wrong with an adapter must neither end the engine nor cost its neighbours.
            _logger.warning("job %s: %s", job.id, error, extra={"job": job.id})
            self._jobs.fail(
                claim.token,
                job.id,
                code="adapter_unusable",
                message=f"the adapter of subject {order.subject} must be complete and made for "
                f"{order.model}, got one that cannot be loaded; personalize the subject again",
            )
            return None
        return Row(job=job, order=order, clip=clip_request(order, loaded))

    def _load(self, subject_id: str | None, pins: ExitStack) -> LoadedSubject | None:
        if subject_id is None:
            return None
        subject = self._subjects.get(subject_id)
        if subject is None:
            raise RunError(f"subject {subject_id} must still be there, got none; make it again")
        return pins.enter_context(self._adapters.pinned(subject))

    def _run(self, token: str, rows: Sequence[Row]) -> None:
        """Run rows of equal `batch_key`; when they fail together, each gets a try alone."""
        timer = StageTimer(rows)
        adapters = {row.order.subject for row in rows} - {None}
        self._meters.batch(size=len(rows), num_adapters=len(adapters))
        for row in rows:
            loaded = row.clip.subject
            adapter = None if loaded is None else describe_adapter(loaded)
            self._jobs.describe(token, row.job.id, batch_size=len(rows), adapter=adapter)
        failure: type[Exception] | None = None
        clips: list[Frames | None] = []
        try:
            clips = generate_batch(
                self._backbone,
                [row.clip for row in rows],
                on_step=lambda step, steps: self._report(token, rows, timer, step, steps),
            )
        except SQLAlchemyError:
            raise
        except _BATCH_FAILURES as error:
            ids = ", ".join(row.job.id for row in rows)
            _logger.exception("job %s: the batch failed", ids, extra={"job": ids})
            failure = type(error)
        if failure is not None:
            # Not inside `except`: the error holds all that the failed batch had in memory.
            self._recover(token, rows, failure)
            return
        timer.mark("decode")
        for row, frames in zip(rows, clips, strict=True):
            if frames is not None:
                self._finish(token, row, frames, timer)

    def _recover(self, token: str, rows: Sequence[Row], failure: type[Exception]) -> None:
        if len(rows) > 1:
            for row in rows:
                self._run(token, [row])
            return
        is_memory = issubclass(failure, torch.OutOfMemoryError | MemoryError)
        found = "too little memory" if is_memory else failure.__name__
        self._jobs.fail(
            token,
            rows[0].job.id,
            code="out_of_memory" if is_memory else "generation_failed",
            message=f"the model must finish a clip, got {found}; "
            "send a smaller or different request, or ask the operator for the log of this job",
        )

    def _report(
        self, token: str, rows: Sequence[Row], timer: StageTimer, step: int, steps: int
    ) -> Collection[int]:
        self._stepped_at = time.monotonic()
        self._meters.step(timer.mark("denoise"))
        kept = self._jobs.advance(
            token,
            [row.job.id for row in rows],
            step=step,
            steps=steps,
            stage_seconds=timer.shared,
            lease_s=self._settings.lease_s,
        )
        if self._aborting.is_set():
            return range(len(rows))
        dropped = [index for index, row in enumerate(rows) if row.job.id not in kept]
        for index in dropped:
            self._note_drop(rows[index].job)
        return dropped

    def _note_drop(self, job: Job) -> None:
        """Say once why a row leaves its batch; it stays dropped for the steps that follow."""
        if job.id in self._dropped:
            return
        self._dropped.add(job.id)
        now = self._jobs.get(job.id)
        reason = "lost" if now is None else now.status
        _logger.info("job %s: leaves its batch, %s", job.id, reason, extra={"job": job.id})
        if now is not None and now.status == "canceled" and now.finished_at is not None:
            self._meters.canceled(time.time() - now.finished_at)

    def _finish(self, token: str, row: Row, frames: Frames, timer: StageTimer) -> None:
        started = time.monotonic()
        try:
            folder = self._results.write(
                row.job.id,
                token,
                frames,
                fps=row.order.fps,
                metadata=provenance(row, self._backbone.card.revision),
            )
        except OSError:
            _logger.exception(
                "job %s: the clip cannot be written", row.job.id, extra={"job": row.job.id}
            )
            self._jobs.fail(
                token,
                row.job.id,
                code="storage_failed",
                message="a finished clip must be stored, got no room or a broken disk; "
                "ask the operator and send it again",
            )
            return
        self._stepped_at = time.monotonic()
        is_ours = self._jobs.complete(
            token,
            row.job.id,
            result_path=folder,
            stage_seconds=timer.of(row) | {"write": time.monotonic() - started},
            keep_s=self._settings.keep_s,
        )
        if is_ours:
            self._results.keep_only(folder)
            _logger.info("job %s: completed", row.job.id, extra={"job": row.job.id})
        else:
            self._results.remove(folder)
