"""Pictures of strangers: decoded, or refused with the reason they are counted by."""

from PIL import Image

from dreambooth3d.artifacts.image import (
    MAX_PIXELS,
    TooManyPixelsError,
    UnsupportedImageError,
    decode_image,
    flatten,
)
from dreambooth3d.errors import ImageError
from dreambooth3d.pairs.records import Picture
from dreambooth3d.vision.refusal import RefusedError


def decode_or_refuse(data: bytes, *, name: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode a picture to RGB, or RGBA when it has transparency, see `decode_image`.

    Raises:
        RefusedError: `too_many_pixels`, `unsupported_picture` or `unreadable_picture`.
    """
    try:
        return decode_image(data, name=name, max_pixels=max_pixels)
    except TooManyPixelsError as error:
        raise RefusedError("too_many_pixels", str(error)) from error
    except UnsupportedImageError as error:
        raise RefusedError("unsupported_picture", str(error)) from error
    except ImageError as error:
        raise RefusedError("unreadable_picture", str(error)) from error


def open_picture(picture: Picture, *, name: str) -> Image.Image:
    """Decode bytes, take pixels as they are: RGB, or RGBA."""
    if isinstance(picture, bytes):
        return decode_or_refuse(picture, name=name)
    return picture if picture.mode == "RGBA" else flatten(picture)
