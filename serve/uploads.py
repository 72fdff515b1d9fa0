"""Photos from a client: bounded, decoded, written anew as PNG under names of our own.

Nothing of the sent bytes reaches the disk but pixels: no metadata, no second file behind a picture.
"""

import asyncio
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from PIL import Image
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException

from dreambooth3d.artifacts.image import TooManyPixelsError, decode_image, flatten
from dreambooth3d.artifacts.key import publish
from dreambooth3d.artifacts.subject import check_words
from dreambooth3d.errors import ImageError, InputError
from serve.errors import ApiError
from serve.schema import shown

MAX_UPLOAD_BYTES = 64 * 2**20
MAX_IMAGE_BYTES = 16 * 2**20
MAX_PIXELS = 25_000_000
MAX_IMAGES, MAX_REFERENCES = 32, 8
_MAX_SIDE = 1536
# Decoded photos take a hundred times the memory of sent ones: one upload at a time.
_DECODING = asyncio.Semaphore(1)
_MAX_NAME = 64
_TEXTS = ("class_noun", "name")
_FILES = {"images": MAX_IMAGES, "references": MAX_REFERENCES}


@dataclass(frozen=True, kw_only=True, eq=False)
class SubjectUpload:
    """What `POST /v1/subjects` brings, decoded."""

    class_noun: str
    name: str
    images: tuple[Image.Image, ...]
    references: tuple[Image.Image, ...]


async def read_upload(request: Request) -> SubjectUpload:
    """Read a multipart body, or refuse it with 400, 413 or 415."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        message = f"Content-Type must be multipart/form-data, got {shown(kind)}; send a form"
        raise ApiError(400, "invalid_value", message, param="Content-Type")
    _check_length(request)
    try:
        form = await request.form(
            max_files=MAX_IMAGES + MAX_REFERENCES, max_fields=8, max_part_size=4096
        )
    # Starlette looks the boundary up without checking for it.
    except (HTTPException, MultiPartException, KeyError, UnicodeDecodeError) as error:
        message = (
            f"the body must be multipart/form-data of at most {MAX_IMAGES} photos and "
            f"{MAX_REFERENCES} references, got something else"
        )
        raise ApiError(400, "invalid_value", f"{message}; correct it", param="body") from error
    texts, files = await _sort(form.multi_items())
    class_noun = texts.get("class_noun", "")
    try:
        check_words("class_noun", class_noun)
    except InputError as error:
        raise ApiError(400, "invalid_value", str(error), param="class_noun") from error
    if not files["images"]:
        message = "images must be at least one photo, got none; add fields named images[]"
        raise ApiError(400, "invalid_value", message, param="images")
    async with _DECODING:
        return SubjectUpload(
            class_noun=class_noun.strip(),
            name=texts.get("name", ""),
            images=await run_in_threadpool(_decode, "images", files["images"]),
            references=await run_in_threadpool(_decode, "references", files["references"]),
        )


def store_upload(upload: SubjectUpload, folder: Path) -> None:
    """Write `images/001.png ..` and `references/001.png ..`, all or nothing."""
    with publish(folder) as aside:
        for kind, pictures in (("images", upload.images), ("references", upload.references)):
            (aside / kind).mkdir(parents=True)
            for number, picture in enumerate(pictures, start=1):
                picture.save(aside / kind / f"{number:03d}.png", format="PNG")


def remove_upload(folder: Path) -> None:
    """Remove what `store_upload` wrote."""
    shutil.rmtree(folder, ignore_errors=True)


def _check_length(request: Request) -> None:
    # Without a length a body could not be refused before it fills the disk.
    length = request.headers.get("content-length", "")
    if not length.isascii() or not length.isdigit():
        message = "Content-Length must be given with photos, got none; send it"
        raise ApiError(400, "invalid_value", message, param="Content-Length")
    if int(length) > MAX_UPLOAD_BYTES:
        raise _too_large(f"an upload must have at most {MAX_UPLOAD_BYTES} bytes, got {length}")


async def _sort(
    items: Sequence[tuple[str, UploadFile | str]],
) -> tuple[dict[str, str], dict[str, list[bytes]]]:
    texts: dict[str, str] = {}
    files: dict[str, list[bytes]] = {name: [] for name in _FILES}
    for field, value in items:
        name = field.removesuffix("[]")
        if isinstance(value, UploadFile) and name in _FILES:
            files[name].append(await _read_file(name, value))
            if len(files[name]) > _FILES[name]:
                raise _too_large(f"{name} must be at most {_FILES[name]} pictures, got more", name)
        elif isinstance(value, str) and field in _TEXTS and field not in texts:
            if len(value) > _MAX_NAME or not value.isprintable():
                message = f"{field} must be at most {_MAX_NAME} printable letters, got other text"
                raise ApiError(400, "invalid_value", f"{message}; shorten it", param=field)
            texts[field] = value
        elif name in _FILES:
            message = f"{field} must be a file, got text; send a picture"
            raise ApiError(400, "invalid_value", message, param=name)
        else:
            message = (
                f"fields must be images[], references[], class_noun and name, got {shown(field)}; "
                "leave it out"
            )
            raise ApiError(400, "invalid_value", message, param=shown(field)[1:-1])
    return texts, files


async def _read_file(name: str, upload: UploadFile) -> bytes:
    data = await upload.read(MAX_IMAGE_BYTES + 1)
    if len(data) > MAX_IMAGE_BYTES:
        raise _too_large(f"a picture must have at most {MAX_IMAGE_BYTES} bytes, got more", name)
    return data


def _decode(name: str, files: Sequence[bytes]) -> tuple[Image.Image, ...]:
    return tuple(
        _decode_one(f"{name}[{number}]", data, name) for number, data in enumerate(files, start=1)
    )


def _decode_one(shown_as: str, data: bytes, param: str) -> Image.Image:
    try:
        picture = flatten(decode_image(data, name=shown_as, max_pixels=MAX_PIXELS))
    except TooManyPixelsError as error:
        raise ApiError(413, "image_too_large", str(error), param=param) from error
    except ImageError as error:
        raise ApiError(415, "not_an_image", str(error), param=param) from error
    # Training pictures are smaller; what waits for the others must not fill the memory.
    picture.thumbnail((_MAX_SIDE, _MAX_SIDE))
    return picture


def _too_large(message: str, param: str = "body") -> ApiError:
    return ApiError(413, "upload_too_large", f"{message}; send less", param=param)
