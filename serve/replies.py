"""What is sent back: OpenAI's video object with our extras, subjects, models, lists."""

import math
from typing import Literal

from pydantic import BaseModel

from dreambooth3d.artifacts.subject import DEFAULT_TRIGGER
from serve.errors import ErrorBody
from serve.orders import ClipOrder, ClipRules
from serve.records import Job, Status
from serve.subjects import ServableSubject
from serve.trainings import SubjectStatus, Training

_LEAST_POLL_MS, _MOST_POLL_MS = 50, 5000


class JobError(BaseModel):
    """Why a job failed."""

    code: str
    message: str


class AdapterReply(BaseModel):
    """Proof of which adapter acted, and on how many layers its update is not zero."""

    sha256: str
    layers_applied: int
    layers_expected: int


class VideoReply(BaseModel):
    """A job, as OpenAI's `video` object plus our extras. Times in Unix seconds."""

    id: str
    object: Literal["video"] = "video"
    model: str
    status: Status
    progress: int
    created_at: int
    started_at: int | None
    completed_at: int | None
    expires_at: int | None
    prompt: str
    seconds: str
    size: str
    error: JobError | None
    remixed_from_video_id: str | None
    subject: str | None
    seed: int
    num_frames: int
    fps: int
    num_inference_steps: int
    guidance_scale: float
    metadata: dict[str, str]
    queue_position: int | None
    eta_seconds: float | None
    step: int
    steps: int
    stage_seconds: dict[str, float]
    batch_size: int | None
    attempts: int
    adapter: AdapterReply | None


class VideoList(BaseModel):
    """One page of jobs."""

    object: Literal["list"] = "list"
    data: list[VideoReply]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeletedSubjectReply(BaseModel):
    """A subject that is gone, with its photos."""

    id: str
    object: Literal["subject.deleted"] = "subject.deleted"
    deleted: Literal[True] = True


class DeletedReply(BaseModel):
    """A job that is gone, with its files."""

    id: str
    object: Literal["video.deleted"] = "video.deleted"
    deleted: Literal[True] = True


class SubjectAdapterReply(BaseModel):
    """The adapter of a subject, by content."""

    sha256: str
    key: str
    method: str
    reference_attention: str
    backbone_revision: str
    steps: int


class SubjectScores(BaseModel):
    """Held-out views, judged before and after training; None where likeness is not measured."""

    identity_before: float | None
    identity: float | None
    held_out_loss: float


class SubjectReply(BaseModel):
    """A subject that can be asked for; `error` tells why it cannot on this backbone."""

    id: str
    object: Literal["subject"] = "subject"
    name: str = ""
    status: SubjectStatus
    progress: int = 100
    created_at: int
    class_noun: str | None
    trigger: str | None
    phrase: str
    num_views: int
    views: list[str]
    adapter: SubjectAdapterReply | None
    scores: SubjectScores | None
    error: ErrorBody | None


class SubjectList(BaseModel):
    """One page of subjects."""

    object: Literal["list"] = "list"
    data: list[SubjectReply]
    first_id: str | None
    last_id: str | None
    has_more: bool


class ModelReply(BaseModel):
    """The served backbone and the clips it can make."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "dreambooth3d"
    revision: str
    default_size: str
    default_num_frames: int
    size_multiple: int
    frame_multiple: int
    max_clip_tokens: int


class ModelList(BaseModel):
    """All served models."""

    object: Literal["list"] = "list"
    data: list[ModelReply]


class HealthReply(BaseModel):
    """State of this replica."""

    status: Literal["ok", "warming"]


def video_reply(job: Job, *, queue_position: int | None, eta_seconds: float | None) -> VideoReply:
    """Describe a job to its client."""
    order = ClipOrder.from_json(job.request)
    is_failed = job.status == "failed"
    return VideoReply(
        id=job.id,
        model=order.model,
        status=job.status,
        progress=job.progress,
        created_at=int(job.created_at),
        started_at=_seconds(job.started_at),
        completed_at=_seconds(job.finished_at) if job.status == "completed" else None,
        expires_at=_seconds(job.expires_at),
        prompt=order.prompt,
        seconds=f"{order.num_frames / order.fps:g}",
        size=f"{order.width}x{order.height}",
        error=JobError(code=job.error_code or "", message=job.error_message or "")
        if is_failed else None,
        remixed_from_video_id=order.remixed_from,
        subject=order.subject,
        seed=order.seed,
        num_frames=order.num_frames,
        fps=order.fps,
        num_inference_steps=order.num_steps,
        guidance_scale=order.guidance_scale,
        metadata=order.metadata,
        queue_position=queue_position,
        eta_seconds=None if eta_seconds is None else round(eta_seconds, 3),
        step=job.step,
        steps=job.steps,
        stage_seconds={name: round(value, 3) for name, value in job.stage_seconds.items()},
        batch_size=job.batch_size,
        attempts=job.attempts,
        adapter=None if job.adapter is None else AdapterReply.model_validate(job.adapter),
    )  # fmt: skip


def estimate_seconds(
    job: Job,
    *,
    position: int | None,
    is_busy: bool,
    mean_seconds: float | None,
    max_batch: int,
    now: float,
) -> float | None:
    """Estimate the time until a live job ends; None without anything to go by.

    Args:
        job: a job as it is now.
        position: its place in the queue, 1 is next; None unless queued.
        is_busy: whether an engine works, on average half done.
        mean_seconds: what jobs of its kind took from claim to end.
        max_batch: clips of a batch.
        now: Unix seconds.
    """
    if job.status == "in_progress" and job.started_at is not None:
        spent = now - job.started_at
        by_steps = spent / job.step * (job.steps - job.step) if job.step else None
        if mean_seconds is None:
            return by_steps
        # Steps tell of a slow batch; the mean knows of what follows them, decoding and writing.
        return max(mean_seconds - spent, by_steps or 0.0)
    if not job.is_live or mean_seconds is None:
        return None
    return mean_seconds * (math.ceil((position or 0) / max_batch) + (0.5 if is_busy else 0.0))


def poll_after_ms(eta_seconds: float | None) -> int:
    """Milliseconds a client should wait: three quarters of what is left, within bounds."""
    if eta_seconds is None:
        return 500
    return int(min(_MOST_POLL_MS, max(_LEAST_POLL_MS, eta_seconds * 750)))


def subject_reply(
    subject: ServableSubject, problem: ErrorBody | None, training: Training | None
) -> SubjectReply:
    """Describe a subject; `training` is that of an uploaded one."""
    card = subject.card
    return SubjectReply(
        id=subject.id,
        name="" if training is None else training.name,
        status="failed" if problem else "ready",
        created_at=int(subject.created_at if training is None else training.created_at),
        class_noun=card.class_noun,
        trigger=card.trigger,
        phrase=subject.phrase,
        num_views=card.num_views,
        views=[f"/v1/subjects/{subject.id}/views/{n + 1}" for n in range(card.num_views)],
        scores=SubjectScores.model_validate(scores) if (scores := subject.scores) else None,
        adapter=SubjectAdapterReply(
            sha256=card.weights_sha256,
            key=card.key,
            method=card.method,
            reference_attention=card.reference_attention,
            backbone_revision=card.backbone_revision,
            steps=card.steps,
        ),
        error=problem,
    )


def training_reply(training: Training) -> SubjectReply:
    """Describe a subject that has no adapter yet, or never will."""
    error = training.error_message
    return SubjectReply(
        id=training.id,
        name=training.name,
        status=training.status,
        progress=100 if training.status == "ready" else training.progress or 0,
        created_at=int(training.created_at),
        class_noun=training.class_noun,
        trigger=DEFAULT_TRIGGER,
        phrase=f"{DEFAULT_TRIGGER} {training.class_noun}",
        num_views=0,
        views=[],
        scores=None,
        adapter=None,
        error=None
        if error is None
        else ErrorBody(code=training.error_code or "training_failed", message=error),
    )


def model_reply(rules: ClipRules) -> ModelReply:
    """Describe the served backbone."""
    card = rules.backbone
    return ModelReply(
        id=rules.model,
        revision=card.revision,
        default_size=f"{card.width}x{card.height}",
        default_num_frames=card.num_frames,
        size_multiple=rules.size_multiple,
        frame_multiple=rules.temporal_ratio,
        max_clip_tokens=rules.max_tokens,
    )


def _seconds(value: float | None) -> int | None:
    return None if value is None else int(value)
