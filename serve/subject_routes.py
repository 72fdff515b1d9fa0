"""Subjects: learned from photos, listed, shown, deleted."""

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse

from serve import openapi, orders, replies, schema
from serve.access import Caller
from serve.errors import ApiError, ErrorBody
from serve.records import QueueFullError
from serve.services import By, Given, Limit, Services, find_subject
from serve.subjects import ServableSubject
from serve.trainings import Training, is_uploaded_id, new_subject_id
from serve.uploads import (
    MAX_IMAGES,
    MAX_REFERENCES,
    SubjectUpload,
    read_upload,
    remove_upload,
    store_upload,
)

_PICTURE = {"type": "string", "format": "binary"}
_FORM = {
    "type": "object",
    "required": ["images[]", "class_noun"],
    "additionalProperties": False,
    "properties": {
        "images[]": {"type": "array", "items": _PICTURE, "minItems": 1, "maxItems": MAX_IMAGES},
        "references[]": {"type": "array", "items": _PICTURE, "maxItems": MAX_REFERENCES},
        "class_noun": {"type": "string", "minLength": 1, "maxLength": 64},
        "name": {"type": "string", "maxLength": 64},
    },
}
subjects = APIRouter(responses=openapi.ALWAYS)


@subjects.post(
    "/v1/subjects",
    status_code=202,
    responses=openapi.refusals(400, 409, 413, 415)
    | openapi.follow("subject_id", "get_subject", "delete_subject"),
    openapi_extra={
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}}
    },
)
async def create_subject(
    request: Request, given: Given, by: By, response: Response
) -> replies.SubjectReply:
    """Take photos of one object and learn it; ask for the subject until it is ready."""
    await run_in_threadpool(_check_room, given)
    upload = await read_upload(request)
    training = await run_in_threadpool(_submit, given, by, upload)
    response.headers["Location"] = f"/v1/subjects/{training.id}"
    return replies.training_reply(training)


@subjects.get("/v1/subjects", responses=openapi.refusals(400))
def list_subjects(
    given: Given, by: By, after: str | None = None, limit: Limit = 100
) -> replies.SubjectList:
    """List the subjects that can be asked for or are in training, by id."""
    waiting = {training.id: training for training in given.trainings.of(by.owner)}
    found = {
        subject.id: subject
        for subject in given.subjects.all()
        if subject.id in waiting or not is_uploaded_id(subject.id)
    }
    ids = sorted(name for name in found | waiting if after is None or name > after)
    data = [
        _describe_subject(given, found[name], waiting.get(name))
        if name in found
        else replies.training_reply(waiting[name])
        for name in ids[:limit]
    ]
    return replies.SubjectList(
        data=data,
        first_id=data[0].id if data else None,
        last_id=data[-1].id if data else None,
        has_more=len(ids) > limit,
    )


@subjects.get("/v1/subjects/{subject_id}", responses=openapi.refusals(404))
def get_subject(subject_id: str, given: Given, by: By) -> replies.SubjectReply:
    """Describe one subject."""
    training = _own_training(given, by, subject_id)
    if training is None:
        found = find_subject(given, by, subject_id, param="subject_id")
        return _describe_subject(given, found, None)
    made = given.subjects.get(subject_id)
    if made is None:
        return replies.training_reply(training)
    return _describe_subject(given, made, training)


@subjects.delete("/v1/subjects/{subject_id}", responses=openapi.refusals(404, 409))
def delete_subject(subject_id: str, given: Given, by: By) -> replies.DeletedSubjectReply:
    """Remove an uploaded subject with its photos; its training is stopped."""
    if _own_training(given, by, subject_id) is None:
        find_subject(given, by, subject_id, param="subject_id")
        message = "a subject must be uploaded to be deleted, got one of the operator's; ask there"
        raise ApiError(409, "subject_not_yours", message, param="subject_id")
    given.trainings.remove(subject_id)
    remove_upload(given.settings.uploads_root / subject_id)
    # A running clip holds its adapter in memory; a running training removes what it still makes.
    remove_upload(given.settings.uploaded_root / subject_id)
    return replies.DeletedSubjectReply(id=subject_id)


@subjects.get(
    "/v1/subjects/{subject_id}/views/{number}",
    response_class=FileResponse,
    responses=openapi.refusals(400, 404)
    | {200: {"content": {"image/png": {"schema": _PICTURE}}, "description": "A view."}},
)
def get_view(subject_id: str, number: int, given: Given, by: By) -> FileResponse:
    """Send one of a subject's reference views, counted from 1."""
    path = find_subject(given, by, subject_id, param="subject_id").view(number)
    if path is None:
        message = f"view must be one of the subject's num_views, got {number}; start at 1"
        raise ApiError(404, "view_not_found", message, param="number")
    return FileResponse(path, media_type="image/png")


def _check_room(given: Services) -> None:
    """Refuse before photos are read and decoded."""
    if given.training_problem:
        raise ApiError(409, "training_unavailable", given.training_problem)
    try:
        given.trainings.check_room(max_queued=given.settings.max_trainings)
    except QueueFullError as error:
        raise _full(error) from error


def _full(error: QueueFullError) -> ApiError:
    return ApiError(429, "queue_full", str(error), headers={"Retry-After": "60"})


def _submit(given: Services, by: Caller, upload: SubjectUpload) -> Training:
    subject_id = new_subject_id()
    folder = given.settings.uploads_root / subject_id
    store_upload(upload, folder)
    try:
        return given.trainings.submit(
            subject_id,
            owner=by.owner,
            name=upload.name,
            class_noun=upload.class_noun,
            num_images=len(upload.images),
            num_references=len(upload.references),
            max_queued=given.settings.max_trainings,
        )
    except QueueFullError as error:
        remove_upload(folder)
        raise _full(error) from error


def _own_training(given: Services, by: Caller, subject_id: str) -> Training | None:
    training = given.trainings.get(subject_id) if schema.is_subject_id(subject_id) else None
    return training if training is not None and training.owner == by.owner else None


def _describe_subject(
    given: Services, subject: ServableSubject, training: Training | None
) -> replies.SubjectReply:
    problem: ErrorBody | None = None
    try:
        orders.check_adapter(subject.card, given.rules)
    except ApiError as error:
        problem = error.reply.error
    return replies.subject_reply(subject, problem, training)
