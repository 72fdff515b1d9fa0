"""JSON and multipart bodies to one dict; the `openai` client sends forms, others send JSON."""

import json
import re
from collections.abc import AsyncGenerator
from contextlib import suppress

from fastapi import Request
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from serve.errors import ApiError
from serve.schema import shown

MAX_BODY_BYTES = 2**20
_MAX_FIELDS = 64
_NESTED = re.compile(r"metadata\[([^\[\]]+)\]")


async def read_body(request: Request) -> object:
    """Read at most 1 MiB as the fields of a request; form fields arrive as text."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ("application/json", "multipart/form-data"):
        raise ApiError(
            400,
            "invalid_value",
            f"Content-Type must be application/json or multipart/form-data, got {shown(kind)}; "
            "send one of them",
            param="Content-Type",
        )
    body = await _read_limited(request)
    if kind == "application/json":
        return _parse_json(body)
    return await _parse_form(request, body)


async def _read_limited(request: Request) -> bytes:
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_BODY_BYTES:
            raise ApiError(
                413,
                "body_too_large",
                f"a body must have at most {MAX_BODY_BYTES} bytes, got more; send less",
            )
        parts.append(part)
    return b"".join(parts)


def _parse_json(body: bytes) -> object:
    try:
        found: object = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _bad_body("JSON", "something else") from error
    return found


async def _parse_form(request: Request, body: bytes) -> dict[str, object]:
    async def once() -> AsyncGenerator[bytes, None]:
        yield body

    parser = MultiPartParser(request.headers, once(), max_files=1, max_fields=_MAX_FIELDS)
    try:
        form = await parser.parse()
    # Starlette looks the boundary up without checking for it.
    except (MultiPartException, KeyError, UnicodeDecodeError) as error:
        raise _bad_body("multipart/form-data", "something else") from error
    return _fields_of(form)


def _fields_of(form: FormData) -> dict[str, object]:
    fields: dict[str, object] = {}
    metadata: dict[str, object] = {}
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            raise _bad_body("fields without files", f"a file in {shown(name)}")
        nested = _NESTED.fullmatch(name)
        home, key = (metadata, nested[1]) if nested else (fields, name)
        if key in home:
            raise _bad_body("fields that occur once", f"{shown(name)} twice")
        home[key] = value
    if not metadata and isinstance(text := fields.get("metadata"), str):
        # A form has no objects: what is no JSON is refused as the text it is.
        with suppress(ValueError, RecursionError):
            fields["metadata"] = json.loads(text)
    if metadata and "metadata" in fields:
        raise _bad_body("fields that occur once", "'metadata' twice")
    return fields | ({"metadata": metadata} if metadata else {})


def _bad_body(rule: str, found: str) -> ApiError:
    message = f"the body must be {rule}, got {found}; correct it"
    return ApiError(400, "invalid_value", message, param="body")
