"""The HTTP interface, as a plain FastAPI application: no ray, no model, only the job table."""

import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException

from dreambooth3d.model.backbone import read_card
from serve import orders, replies, schema
from serve.access import Access, Caller, Mode
from serve.body import read_body
from serve.errors import ApiError, ErrorBody, ErrorReply
from serve.jobs import JobTable
from serve.keys import KeyTable
from serve.records import IdempotencyError, Job, NewJob, QueueFullError, QuotaError
from serve.results import CLIP_NAME, THUMBNAIL_NAME, ResultStore
from serve.settings import ServeSettings
from serve.site import site
from serve.subjects import ServableSubject, SubjectCatalog

_logger = logging.getLogger(__name__)
_REFUSALS: dict[int | str, dict[str, Any]] = {"4XX": {"model": ErrorReply}}


@dataclass(frozen=True, kw_only=True, eq=False)
class Services:
    """What the routes work on; `is_ready` asks the engine whether it is warm."""

    settings: ServeSettings
    rules: orders.ClipRules
    jobs: JobTable
    subjects: SubjectCatalog
    results: ResultStore
    access: Access
    is_ready: Callable[[], Awaitable[bool]]


def open_services(
    settings: ServeSettings,
    is_ready: Callable[[], Awaitable[bool]],
    *,
    is_loopback: bool,
    jobs: JobTable | None = None,
) -> Services:
    """Open the job table and folders; of the backbone only the card is read."""
    unasked: Mode = "loopback" if is_loopback else "keys"
    modes: dict[str, Mode] = {"auto": unasked, "always": "keys", "never": "open"}
    return Services(
        settings=settings,
        rules=orders.ClipRules.of(read_card(settings.backbone), settings),
        jobs=jobs or JobTable(settings.database_url),
        subjects=SubjectCatalog(settings.subjects_root),
        results=ResultStore(settings.results_root),
        access=Access(modes[settings.require_keys], KeyTable(settings.database_url)),
        is_ready=is_ready,
    )


def make_api(services: Services) -> FastAPI:
    """Build the application; the interactive pages are off because they load foreign scripts."""
    api = FastAPI(title="dreambooth3d", version="1", docs_url=None, redoc_url=None)
    api.state.services = services
    api.include_router(router)
    api.include_router(site)
    api.add_exception_handler(ApiError, _answer_api_error)
    api.add_exception_handler(RequestValidationError, _answer_bad_parameter)
    api.add_exception_handler(HTTPException, _answer_http_error)
    api.add_exception_handler(Exception, _answer_bug)
    return api


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


Given = Annotated[Services, Depends(_services)]
_bearer = HTTPBearer(auto_error=False, description="Not asked for on loopback.")


def _admit(request: Request, given: Given, _key: Annotated[object, Depends(_bearer)]) -> Caller:
    return given.access.admit(request.method, request.headers)


By = Annotated[Caller, Depends(_admit)]
Limit = Annotated[int, Query(ge=1, le=100)]
router = APIRouter(responses=_REFUSALS)


@router.post(
    "/v1/videos",
    status_code=202,
    response_model=replies.VideoReply,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                kind: {"schema": schema.VideoCreate.model_json_schema()}
                for kind in ("application/json", "multipart/form-data")
            },
        },
        "parameters": [
            {
                "name": "Idempotency-Key",
                "in": "header",
                "required": False,
                "schema": {"type": "string", "minLength": 1, "maxLength": 255},
            }
        ],
    },
)
async def create_video(
    request: Request, given: Given, by: By, response: Response
) -> replies.VideoReply:
    """Accept a job; the same `Idempotency-Key` gives the same job."""
    key = schema.check_idempotency_key(request.headers.get("idempotency-key"))
    asked = schema.parse_create(await read_body(request))
    job = await run_in_threadpool(_submit, given, by, asked, key)
    response.headers["Location"] = f"/v1/videos/{job.id}"
    return await run_in_threadpool(_describe, given, job, response)


@router.get("/v1/videos/{video_id}")
def get_video(video_id: str, given: Given, by: By, response: Response) -> replies.VideoReply:
    """Tell how a job is doing."""
    return _describe(given, _find_job(given, by, video_id), response)


@router.get("/v1/videos")
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
    data = [_describe(given, job) for job in jobs]
    ids = [video.id for video in data]
    return replies.VideoList(
        data=data,
        first_id=ids[0] if ids else None,
        last_id=ids[-1] if ids else None,
        has_more=has_more,
    )


@router.get("/v1/videos/{video_id}/content", response_class=FileResponse)
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


@router.post("/v1/videos/{video_id}/cancel", status_code=202)
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


@router.delete("/v1/videos/{video_id}")
def delete_video(video_id: str, given: Given, by: By) -> replies.DeletedReply:
    """Remove a job and its files; a live one is stopped."""
    found = _find_job(given, by, video_id)
    job = given.jobs.delete(found.id)
    if job is not None and job.result_path is not None:
        given.results.remove(job.result_path)
    return replies.DeletedReply(id=found.id)


@router.get("/v1/subjects")
def list_subjects(
    given: Given, after: str | None = None, limit: Limit = 100
) -> replies.SubjectList:
    """List the subjects that can be asked for, by id."""
    found = [s for s in given.subjects.all() if after is None or s.id > after]
    data = [_describe_subject(given, subject) for subject in found[:limit]]
    return replies.SubjectList(
        data=data,
        first_id=data[0].id if data else None,
        last_id=data[-1].id if data else None,
        has_more=len(found) > limit,
    )


@router.get("/v1/subjects/{subject_id}")
def get_subject(subject_id: str, given: Given) -> replies.SubjectReply:
    """Describe one subject."""
    return _describe_subject(given, _find_subject(given, subject_id, param="subject_id"))


@router.get("/v1/subjects/{subject_id}/views/{number}", response_class=FileResponse)
def get_view(subject_id: str, number: int, given: Given) -> FileResponse:
    """Send one of a subject's reference views, counted from 1."""
    path = _find_subject(given, subject_id, param="subject_id").view(number)
    if path is None:
        message = f"view must be one of the subject's num_views, got {number}; start at 1"
        raise ApiError(404, "view_not_found", message, param="number")
    return FileResponse(path, media_type="image/png")


@router.get("/v1/models")
def list_models(given: Given) -> replies.ModelList:
    """Name the served backbone."""
    return replies.ModelList(data=[replies.model_reply(given.rules)])


@router.get("/healthz")
def get_health() -> replies.HealthReply:
    """Say that this process answers."""
    return replies.HealthReply(status="ok")


@router.get("/readyz", responses={503: {"model": replies.HealthReply}})
async def get_readiness(given: Given, response: Response) -> replies.HealthReply:
    """Say whether an engine is warm; 503 until then."""
    is_ready = await given.is_ready()
    response.status_code = 200 if is_ready else 503
    return replies.HealthReply(status="ok" if is_ready else "warming")


def _submit(given: Services, by: Caller, asked: schema.VideoCreate, key: str | None) -> Job:
    card = None
    if asked.subject is not None:
        card = _find_subject(given, asked.subject, param="subject").card
        orders.check_adapter(card, given.rules)
    order = orders.resolve(asked, given.rules, card)
    new = NewJob(
        request=order.to_json(),
        request_hash=asked.content_hash,
        batch_key=orders.batch_key(order, card),
        num_tokens=given.rules.num_tokens(order.num_frames, order.width, order.height),
        steps=order.num_steps,
        idempotency_key=key,
        owner=by.owner,
    )
    try:
        job, _ = given.jobs.submit(new, max_queued=given.settings.max_queued, max_live=by.max_live)
    except (QueueFullError, QuotaError) as error:
        code = "queue_full" if isinstance(error, QueueFullError) else "quota_exceeded"
        wait_s = max(1, round(given.jobs.mean_seconds() or 1))
        headers = {"Retry-After": str(wait_s)}
        raise ApiError(429, code, str(error), headers=headers) from error
    except IdempotencyError as error:
        param = "Idempotency-Key"
        raise ApiError(409, "idempotency_conflict", str(error), param=param) from error
    return job


def _describe(given: Services, job: Job, response: Response | None = None) -> replies.VideoReply:
    position, eta_seconds = None, None
    if job.is_live:
        position = given.jobs.queue_position(job)
        eta_seconds = replies.estimate_seconds(
            job,
            position=position,
            mean_seconds=given.jobs.mean_seconds(),
            max_batch=given.settings.max_batch,
            now=time.time(),
        )
    if response is not None:
        response.headers["openai-poll-after-ms"] = str(replies.poll_after_ms(eta_seconds))
    return replies.video_reply(job, queue_position=position, eta_seconds=eta_seconds)


def _describe_subject(given: Services, subject: ServableSubject) -> replies.SubjectReply:
    problem: ErrorBody | None = None
    try:
        orders.check_adapter(subject.card, given.rules)
    except ApiError as error:
        problem = error.reply.error
    return replies.subject_reply(subject, problem)


def _find_job(given: Services, by: Caller, video_id: str) -> Job:
    job = given.jobs.get(video_id) if schema.is_job_id(video_id) else None
    # Somebody else's job is as unknown as one that never was.
    if job is None or job.owner != by.owner:
        raise _unknown_job(video_id, "video_id")
    return job


def _unknown_job(video_id: str, param: str) -> ApiError:
    message = f"{param} must be a video's id, got {schema.shown(video_id)}; see /v1/videos"
    return ApiError(404, "video_not_found", message, param=param)


def _find_subject(given: Services, subject_id: str, *, param: str) -> ServableSubject:
    found = given.subjects.get(subject_id) if schema.is_subject_id(subject_id) else None
    if found is None:
        message = f"{param} must be a subject's id, got {schema.shown(subject_id)}; "
        raise ApiError(404, "subject_not_found", message + "see /v1/subjects", param=param)
    return found


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


def _answer_api_error(_request: Request, error: Exception) -> Response:
    if not isinstance(error, ApiError):
        raise error
    return JSONResponse(error.reply.model_dump(), error.status, error.headers)


def _answer_bad_parameter(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    first = error.errors()[0]
    param = str(first["loc"][-1])
    refusal = schema.field_error(param, first["type"], first["msg"], first.get("input"))
    return _answer_api_error(request, refusal)


def _answer_http_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    codes = {404: "not_found", 405: "method_not_allowed"}
    refusal = ApiError(
        error.status_code,
        codes.get(error.status_code, "invalid_request"),
        f"a request must be a path and method of /openapi.json, got {request.method} "
        f"{schema.shown(request.url.path)}; correct it",
        headers=error.headers,
    )
    return _answer_api_error(request, refusal)


def _answer_bug(request: Request, _error: Exception) -> Response:
    # Starlette logs the exception itself after this answer.
    message = "the server must answer every request, got an unforeseen error; tell the operator"
    return _answer_api_error(request, ApiError(500, "internal_error", message))
