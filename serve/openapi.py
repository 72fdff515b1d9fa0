"""How the interface describes itself: the refusals of each call, and which call follows another."""

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import BaseModel

from serve.errors import ErrorReply
from serve.schema import VideoCreate

_MEANINGS: Mapping[int, str] = {
    400: "A value is wrong.",
    401: "The key is missing, wrong or expired.",
    403: "A web page of somebody else asks.",
    404: "Unknown to the owner of this key.",
    409: "Not possible in the present state.",
    410: "It was there and is gone.",
    413: "Too large.",
    415: "Not a picture.",
    416: "Outside of the file.",
    422: "A clip of this shape cannot be made.",
    429: "Too many; ask again after Retry-After seconds.",
    503: "The job table cannot be reached; ask again after Retry-After seconds.",
}
_FRAMEWORKS = ("HTTPValidationError", "ValidationError")


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Document statuses of refusals; all have the one form."""
    return {status: {"model": ErrorReply, "description": _MEANINGS[status]} for status in statuses}


ALWAYS = refusals(401, 403, 429, 503)


def follow(parameter: str, *operations: str) -> dict[int | str, dict[str, Any]]:
    """Document that the id in a 202 is the `parameter` of these operations."""
    links = {
        operation: {"operationId": operation, "parameters": {parameter: "$response.body#/id"}}
        for operation in operations
    }
    return {202: {"links": links}}


def create_body() -> dict[str, Any]:
    """The body of `POST /v1/videos`, as JSON and as a form, where nothing can be null."""
    whole = VideoCreate.model_json_schema()
    fields = {name: _without_null(field) for name, field in whole["properties"].items()}
    form = {"schema": whole | {"properties": fields}}
    metadata = {"metadata": {"style": "deepObject", "explode": True}}
    return {
        "required": True,
        "content": {
            "application/json": {"schema": whole},
            "multipart/form-data": form | {"encoding": metadata},
        },
    }


def json_body(model: type[BaseModel]) -> dict[str, Any]:
    """A body that is JSON alone."""
    return {
        "required": True,
        "content": {"application/json": {"schema": model.model_json_schema()}},
    }


def header(name: str, **schema: object) -> dict[str, Any]:
    """Document an optional header of a request."""
    return {"name": name, "in": "header", "required": False, "schema": {"type": "string"} | schema}


class DescribedApi(FastAPI):
    """FastAPI without its own 422, which our refusals replace."""

    def openapi(self) -> dict[str, Any]:
        """Return the document of `/openapi.json`."""
        if self.openapi_schema is None:
            found = super().openapi()
            for operations in found["paths"].values():
                for operation in operations.values():
                    if _FRAMEWORKS[0] in str(operation["responses"].get("422")):
                        del operation["responses"]["422"]
            for name in _FRAMEWORKS:
                found["components"]["schemas"].pop(name, None)
        return super().openapi()


def operation_id(route: APIRoute) -> str:
    """Name an operation by its function."""
    return route.name


def _without_null(field: dict[str, Any]) -> dict[str, Any]:
    choices = [choice for choice in field.get("anyOf", ()) if choice != {"type": "null"}]
    rest = {key: value for key, value in field.items() if key not in ("anyOf", "default")}
    if not choices:
        return field
    return rest | (choices[0] if len(choices) == 1 else {"anyOf": choices})
