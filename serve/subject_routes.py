"""Subjects: those that can be asked for, and their views."""

from fastapi import APIRouter
from fastapi.responses import FileResponse

from serve import orders, replies
from serve.errors import ApiError, ErrorBody
from serve.services import REFUSALS, By, Given, Limit, Services, find_subject
from serve.subjects import ServableSubject

subjects = APIRouter(responses=REFUSALS)


@subjects.get("/v1/subjects")
def list_subjects(
    given: Given, by: By, after: str | None = None, limit: Limit = 100
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


@subjects.get("/v1/subjects/{subject_id}")
def get_subject(subject_id: str, given: Given, by: By) -> replies.SubjectReply:
    """Describe one subject."""
    return _describe_subject(given, find_subject(given, subject_id, param="subject_id"))


@subjects.get("/v1/subjects/{subject_id}/views/{number}", response_class=FileResponse)
def get_view(subject_id: str, number: int, given: Given, by: By) -> FileResponse:
    """Send one of a subject's reference views, counted from 1."""
    path = find_subject(given, subject_id, param="subject_id").view(number)
    if path is None:
        message = f"view must be one of the subject's num_views, got {number}; start at 1"
        raise ApiError(404, "view_not_found", message, param="number")
    return FileResponse(path, media_type="image/png")


def _describe_subject(given: Services, subject: ServableSubject) -> replies.SubjectReply:
    problem: ErrorBody | None = None
    try:
        orders.check_adapter(subject.card, given.rules)
    except ApiError as error:
        problem = error.reply.error
    return replies.subject_reply(subject, problem)
