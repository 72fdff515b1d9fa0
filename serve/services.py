"""What the routes work on, and who asks."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Query, Request
from fastapi.security import HTTPBearer

from dreambooth3d.errors import Dreambooth3dError
from dreambooth3d.model.backbone import read_card
from dreambooth3d.personalize.job import check_start
from serve import orders, schema
from serve.access import Access, Caller, Mode
from serve.errors import ApiError
from serve.events import StreamSlots
from serve.jobs import JobTable
from serve.keys import KeyTable
from serve.results import ResultStore
from serve.settings import ServeSettings
from serve.subjects import ServableSubject, SubjectCatalog
from serve.trainer import pretrained_of, training_config
from serve.trainings import TrainingTable, is_uploaded_id

_logger = logging.getLogger(__name__)
MOST_STREAMS = 64


@dataclass(frozen=True, kw_only=True, eq=False)
class Services:
    """What the routes work on.

    Attributes:
        is_ready: asks the engine whether it is warm.
        training_problem: why photos cannot be learned here; empty where they can.
        streams: of events, that may be open.
    """

    settings: ServeSettings
    rules: orders.ClipRules
    jobs: JobTable
    subjects: SubjectCatalog
    trainings: TrainingTable
    results: ResultStore
    access: Access
    is_ready: Callable[[], Awaitable[bool]]
    training_problem: str
    streams: StreamSlots


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
        subjects=SubjectCatalog(*settings.subject_roots, uploads=settings.uploaded_root),
        trainings=TrainingTable(settings.database_url),
        results=ResultStore(settings.results_root),
        access=Access(modes[settings.require_keys], KeyTable(settings.database_url)),
        is_ready=is_ready,
        training_problem=_training_problem(settings),
        streams=StreamSlots(most=MOST_STREAMS, most_of_one=MOST_STREAMS // 2),
    )


def _training_problem(settings: ServeSettings) -> str:
    """Find out before photos are taken whether the 3Dapter is one of the served backbone."""
    try:
        check_start(training_config(settings), pretrained_of(settings))
    except Dreambooth3dError as error:
        _logger.warning("uploaded photos are refused: %s", error)
        return (
            "a server must have a 3Dapter of its backbone to learn photos, got none here; "
            "ask the operator"
        )
    return ""


# A coroutine, for it waits for nothing: FastAPI would call a function in a thread.
async def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


Given = Annotated[Services, Depends(_services)]
_bearer = HTTPBearer(auto_error=False, description="Not asked for on loopback.")


def _admit(request: Request, given: Given, _key: Annotated[object, Depends(_bearer)]) -> Caller:
    return given.access.admit(request.method, request.headers)


By = Annotated[Caller, Depends(_admit)]
Limit = Annotated[int, Query(ge=1, le=100)]


def find_subject(given: Services, by: Caller, subject_id: str, *, param: str) -> ServableSubject:
    """Find a subject, or refuse with 404."""
    found = given.subjects.get(subject_id) if schema.is_subject_id(subject_id) else None
    if found is not None and is_uploaded_id(subject_id):
        # One without a row was deleted while it was in the making: it is nobody's.
        training = given.trainings.get(subject_id)
        found = found if training is not None and training.owner == by.owner else None
    if found is None:
        message = f"{param} must be a subject's id, got {schema.shown(subject_id)}; "
        raise ApiError(404, "subject_not_found", message + "see /v1/subjects", param=param)
    return found
