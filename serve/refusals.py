"""Every failure as an answer of the one form."""

import logging

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException

from serve import schema
from serve.errors import ApiError

_logger = logging.getLogger(__name__)


def answer_refusals(api: FastAPI) -> None:
    """Answer what routes raise."""
    api.add_exception_handler(ApiError, _answer_api_error)
    api.add_exception_handler(RequestValidationError, _answer_bad_parameter)
    api.add_exception_handler(HTTPException, _answer_http_error)
    api.add_exception_handler(SQLAlchemyError, _answer_no_database)
    api.add_exception_handler(Exception, _answer_bug)


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
        headers=_allowed(request) if error.status_code == 405 else error.headers,
    )
    return _answer_api_error(request, refusal)


def _allowed(request: Request) -> dict[str, str]:
    """Every method of a path; Starlette names those of its first route alone."""
    path = getattr(request.scope.get("route"), "path", "")
    operations = request.app.openapi()["paths"].get(path, {"get": None})
    return {"Allow": ", ".join(sorted(operations)).upper()}


def _answer_no_database(request: Request, error: Exception) -> Response:
    _logger.error("the job table cannot be used", exc_info=error)
    message = "the job table must be reachable, got no answer from it; send the request again"
    refusal = ApiError(503, "unavailable", message, headers={"Retry-After": "5"})
    return _answer_api_error(request, refusal)


def _answer_bug(request: Request, _error: Exception) -> Response:
    # Starlette logs the exception itself after this answer.
    message = "the server must answer every request, got an unforeseen error; tell the operator"
    return _answer_api_error(request, ApiError(500, "internal_error", message))
