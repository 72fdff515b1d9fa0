"""The HTTP interface, as a plain FastAPI application: all it works on comes in."""

from fastapi import APIRouter, FastAPI, Response
from fastapi.responses import PlainTextResponse

from serve import orders, replies
from serve.meters import queue_page
from serve.openapi import ALWAYS, DescribedApi, operation_id, refusals
from serve.refusals import answer_refusals
from serve.services import By, Given, Services
from serve.site import site
from serve.subject_routes import subjects
from serve.video_routes import videos

router = APIRouter()


def make_api(services: Services) -> FastAPI:
    """Build the application; the interactive pages are off because they load foreign scripts."""
    api = DescribedApi(
        title="dreambooth3d",
        version="1",
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=operation_id,
    )
    api.state.services = services
    api.include_router(router)
    api.include_router(videos)
    api.include_router(subjects)
    api.include_router(site)
    answer_refusals(api)
    return api


@router.get("/v1/models", responses=ALWAYS)
def list_models(given: Given, by: By) -> replies.ModelList:
    """Name the served backbone."""
    return replies.ModelList(data=[replies.model_reply(given.rules)])


@router.get("/v1/models/{model}", responses=refusals(404) | ALWAYS)
def get_model(model: str, given: Given, by: By) -> replies.ModelReply:
    """Describe the served backbone."""
    orders.check_model(model, given.rules)
    return replies.model_reply(given.rules)


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


@router.get(
    "/metrics",
    # A class with a media type would give it to the documented refusals, too.
    response_class=Response,
    responses=ALWAYS | {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
def get_metrics(given: Given, by: By) -> PlainTextResponse:
    """Show the state of the queue to Prometheus."""
    _, age_s = given.jobs.queue_state()
    kind = "text/plain; version=0.0.4"
    return PlainTextResponse(queue_page(given.jobs.counts(), age_s), media_type=kind)
