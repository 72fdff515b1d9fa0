"""Clips: asked for, watched, fetched, canceled, deleted."""

import hashlib
import math
import time
from dataclasses import replace
from functools import cache
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, StreamingResponse

from serve import openapi, orders, replies, schema
from serve.access import Caller
from serve.body import read_body
from serve.errors import ApiError
from serve.events import video_events
from serve.jobs import JobTable
from serve.records import IdempotencyError, Job, NewJob, QueueFullError, QuotaError
from serve.results import CLIP_NAME, THUMBNAIL_NAME
from serve.services import By, Given, Limit, Services, find_subject

videos = APIRouter(responses=openapi.ALWAYS)
_LONGEST_RETRY_S = 60.0
_FOLLOWING = openapi.follow(
    "video_id",
    "get_video",
    "get_content",
    "get_events",
    "cancel_video",
    "remix_video",
    "delete_video",
)
_IDEMPOTENCY = openapi.header("Idempotency-Key", minLength=1, maxLength=255)
_EVENT = {
    "type": "object",
    "required": ["data"],
    "properties": {
        "event": {"enum": ["video", "deleted"]},
        "data": {"type": "string", "description": "The video as JSON; {} once it is deleted."},
    },
}
_CLIP: dict[str, Any] = {
    "description": "The clip, or a picture of its middle.",
    "content": {
        kind: {"schema": {"type": "string", "format": "binary"}}
        for kind in ("video/mp4", "image/png")
    },
}


@videos.post(
    "/v1/videos",
    status_code=202,
    response_model=replies.VideoReply,
    responses=openapi.refusals(400, 404, 409, 413, 422) | _FOLLOWING,
    openapi_extra={"requestBody": openapi.create_body(), "parameters": [_IDEMPOTENCY]},
)
async def create_video(
    request: Request, given: Given, by: By, response: Response
) -> replies.VideoReply:
    """Accept a job; the same `Idempotency-Key` gives the same job."""
    key = schema.check_idempotency_key(request.headers.get("idempotency-key"))
    asked = schema.parse_create(await read_body(request))
    job = await run_in_threadpool(_submit, given, by, asked, key)
    return await run_in_threadpool(_accept, given, job, response)


@videos.post(
    "/v1/videos/{video_id}/remix",
    status_code=202,
    responses=openapi.refusals(400, 404, 409, 413, 422) | _FOLLOWING,
    openapi_extra={
        "requestBody": openapi.json_body(schema.VideoRemix),
        "parameters": [_IDEMPOTENCY],
    },
)
async def remix_video(
    request: Request, video_id: str, given: Given, by: By, response: Response
) -> replies.VideoReply:
    """Accept a job for the same subject, seed and settings with another prompt."""
    key = schema.check_idempotency_key(request.headers.get("idempotency-key"))
    prompt = schema.parse_remix(await read_body(request)).prompt
    source = await run_in_threadpool(_find_job, given, by, video_id)
    asked = orders.ask_again(orders.ClipOrder.from_json(source.request), prompt)
    job = await run_in_threadpool(_submit, given, by, asked, key, source.id)
    return await run_in_threadpool(_accept, given, job, response)


@videos.get("/v1/videos/{video_id}", responses=openapi.refusals(404))
def get_video(video_id: str, given: Given, by: By, response: Response) -> replies.VideoReply:
    """Tell how a job is doing."""
    return _describe(given, _find_job(given, by, video_id), response)


@videos.get("/v1/videos", responses=openapi.refusals(400, 404))
def list_videos(
    given: Given,
    by: By,
    after: str | None = None,
    limit: Limit = 20,
    order: Literal["asc", "desc"] = "desc",
) -> replies.VideoList:
    """List jobs, the newest first unless asked otherwise."""
    if after is not None and not schema.is_job_id(after):
        raise _unknown_job(after, "after")
    page = given.jobs.page(owner=by.owner, after=after, limit=limit, order=order)
    if page is None:
        raise _unknown_job(after or "", "after")
    jobs, has_more = page
    outlook = Outlook(given.jobs)
    data = [_describe(given, job, outlook=outlook) for job in jobs]
    ids = [video.id for video in data]
    return replies.VideoList(
        data=data,
        first_id=ids[0] if ids else None,
        last_id=ids[-1] if ids else None,
        has_more=has_more,
    )


@videos.get(
    "/v1/videos/{video_id}/content",
    response_class=FileResponse,
    responses=openapi.refusals(400, 404, 409, 410, 416) | {200: _CLIP, 206: _CLIP},
    openapi_extra={"parameters": [openapi.header("Range", pattern="^bytes=")]},
)
def get_content(
    request: Request,
    video_id: str,
    given: Given,
    by: By,
    variant: Literal["video", "thumbnail"] = "video",
) -> FileResponse:
    """Send the clip, or a picture of its middle; 409 before the end, 410 after it expired."""
    job = _find_job(given, by, video_id)
    name = CLIP_NAME if variant == "video" else THUMBNAIL_NAME
    path = given.results.path(_finished(given, job), name)
    if not path.is_file():
        raise _expired(job)
    schema.check_range(request.headers.get("range"), path.stat().st_size)
    kind = "video/mp4" if variant == "video" else "image/png"
    suffix = "mp4" if variant == "video" else "png"
    return FileResponse(
        path,
        media_type=kind,
        filename=f"{job.id}.{suffix}",
        content_disposition_type="inline",
        headers={"X-Content-Type-Options": "nosniff"},
    )


@videos.get(
    "/v1/videos/{video_id}/events",
    response_class=StreamingResponse,
    responses=openapi.refusals(404)
    | {
        200: {
            "description": "A `video` event with the video whenever it moves on, until it ends.",
            "content": {"text/event-stream": {"schema": _EVENT}},
        }
    },
)
def get_events(video_id: str, given: Given, by: By) -> StreamingResponse:
    """Tell of a job's steps as they end; the job goes on whoever listens."""
    _find_job(given, by, video_id)
    slot = given.streams.take(by.owner)
    if slot is None:
        message = "event streams must be fewer at a time, got no free one; poll the video instead"
        raise ApiError(429, "too_many_streams", message, headers={"Retry-After": "5"})

    def look() -> replies.VideoReply | None:
        job = given.jobs.get(video_id)
        return None if job is None else _describe(given, job)

    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    events = video_events(look, on_end=lambda: given.streams.give_back(slot))
    return StreamingResponse(events, media_type="text/event-stream", headers=headers)


@videos.post("/v1/videos/{video_id}/cancel", status_code=202, responses=openapi.refusals(404, 409))
def cancel_video(video_id: str, given: Given, by: By, response: Response) -> replies.VideoReply:
    """Cancel a live job; the engine lets go of it after its current step."""
    job = given.jobs.cancel(_find_job(given, by, video_id).id)
    if job is None:
        raise _unknown_job(video_id, "video_id")
    if job.status != "canceled":
        raise ApiError(
            409,
            "video_already_finished",
            f"a video must be queued or in_progress to be canceled, got {job.status}; "
            "delete it instead",
            param="video_id",
        )
    return _describe(given, job, response)


@videos.delete("/v1/videos/{video_id}", responses=openapi.refusals(404))
def delete_video(video_id: str, given: Given, by: By) -> replies.DeletedReply:
    """Remove a job and its files; a live one is stopped."""
    found = _find_job(given, by, video_id)
    job = given.jobs.delete(found.id)
    if job is not None and job.result_path is not None:
        given.results.remove(job.result_path)
    return replies.DeletedReply(id=found.id)


def _submit(
    given: Services,
    by: Caller,
    asked: schema.VideoCreate,
    key: str | None,
    remixed_from: str | None = None,
) -> Job:
    request_hash = _request_hash(asked, remixed_from)
    if key is not None:
        # Also when its subject is gone since.
        try:
            earlier = given.jobs.repeat(owner=by.owner, key=key, request_hash=request_hash)
        except IdempotencyError as error:
            raise _conflict(error) from error
        if earlier is not None:
            return earlier
    card = None
    if asked.subject is not None:
        card = find_subject(given, by, asked.subject, param="subject").card
        orders.check_adapter(card, given.rules)
    order = replace(orders.resolve(asked, given.rules, card), remixed_from=remixed_from)
    new = NewJob(
        request=order.to_json(),
        request_hash=request_hash,
        batch_key=orders.batch_key(order, card),
        num_tokens=orders.num_tokens(order, given.rules, card),
        steps=order.num_steps,
        idempotency_key=key,
        owner=by.owner,
    )
    try:
        job, _ = given.jobs.submit(new, max_queued=given.settings.max_queued, max_live=by.max_live)
    except (QueueFullError, QuotaError) as error:
        code = "queue_full" if isinstance(error, QueueFullError) else "quota_exceeded"
        headers = {"Retry-After": str(_retry_after_s(given, is_full=code == "queue_full"))}
        raise ApiError(429, code, str(error), headers=headers) from error
    except IdempotencyError as error:
        raise _conflict(error) from error
    return job


def _conflict(error: IdempotencyError) -> ApiError:
    return ApiError(409, "idempotency_conflict", str(error), param="Idempotency-Key")


def _retry_after_s(given: Services, *, is_full: bool) -> int:
    settings = given.settings
    # Half of a full queue must go first: who comes back earlier finds it full again.
    batches = max(1, settings.max_queued / settings.max_batch / 2) if is_full else 1
    return math.ceil(min((given.jobs.mean_seconds() or 1) * batches, _LONGEST_RETRY_S))


def _request_hash(asked: schema.VideoCreate, remixed_from: str | None) -> str:
    """Tell a remix from a request that happens to ask for the same."""
    if remixed_from is None:
        return asked.content_hash
    return hashlib.sha256(f"{remixed_from} {asked.content_hash}".encode()).hexdigest()


def _accept(given: Services, job: Job, response: Response) -> replies.VideoReply:
    response.headers["Location"] = f"/v1/videos/{job.id}"
    return _describe(given, job, response)


class Outlook:
    """What the table says of the time jobs take, read once for all jobs of one answer."""

    def __init__(self, jobs: JobTable) -> None:
        self.mean_seconds = cache(jobs.mean_seconds)
        self.is_busy = cache(jobs.is_busy)


def _describe(
    given: Services,
    job: Job,
    response: Response | None = None,
    *,
    outlook: Outlook | None = None,
) -> replies.VideoReply:
    position, eta_seconds = None, None
    if job.is_live:
        outlook = outlook or Outlook(given.jobs)
        position = given.jobs.queue_position(job)
        mean_seconds = outlook.mean_seconds(job.batch_key)
        if mean_seconds is None and job.status == "queued":
            mean_seconds = outlook.mean_seconds()
        eta_seconds = replies.estimate_seconds(
            job,
            position=position,
            is_busy=position is not None and outlook.is_busy(),
            mean_seconds=mean_seconds,
            max_batch=given.settings.max_batch,
            now=time.time(),
        )
    if response is not None:
        response.headers["openai-poll-after-ms"] = str(replies.poll_after_ms(eta_seconds))
    return replies.video_reply(job, queue_position=position, eta_seconds=eta_seconds)


def _find_job(given: Services, by: Caller, video_id: str) -> Job:
    job = given.jobs.get(video_id) if schema.is_job_id(video_id) else None
    # Somebody else's job is as unknown as one that never was.
    if job is None or job.owner != by.owner:
        raise _unknown_job(video_id, "video_id")
    return job


def _unknown_job(video_id: str, param: str) -> ApiError:
    message = f"{param} must be a video's id, got {schema.shown(video_id)}; see /v1/videos"
    return ApiError(404, "video_not_found", message, param=param)


def _finished(given: Services, job: Job) -> str:
    """Return the folder of a finished job, or refuse."""
    if job.is_live:
        video = _describe(given, job)
        wait_s = max(1, round(video.eta_seconds or 1))
        raise ApiError(
            409,
            "video_not_ready",
            f"a video must be completed to be downloaded, got {job.status}; ask again later",
            headers={"Retry-After": str(wait_s)},
        )
    if job.status != "completed":
        raise ApiError(
            409,
            f"video_{job.status}",
            f"a video must be completed to be downloaded, got {job.status}; send a new request",
        )
    if job.result_path is None or (job.expires_at or 0) < time.time():
        raise _expired(job)
    return job.result_path


def _expired(job: Job) -> ApiError:
    message = f"a clip must be downloaded before it expires, got {job.id} removed; make it again"
    return ApiError(410, "video_expired", message)
