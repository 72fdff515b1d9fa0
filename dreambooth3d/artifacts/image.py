"""Pictures the user gave: read in full or refused with one sentence that names the file.

Decoding is the only place where unknown bytes meet a parser, so the list of formats is closed, and
the size in the header is checked before any pixel memory is taken.
"""

import re
import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from dreambooth3d.errors import ConfigError, ImageError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
MAX_PIXELS = 80_000_000

# EPS and friends start other programs when they are opened, so Pillow is told what it may try.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
_OPAQUE_MODES = frozenset({"1", "L", "P", "RGB", "CMYK", "YCbCr"})
_ALPHA_MODES = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})
_SIXTEEN_BIT_MODES = frozenset({"I", "I;16", "I;16B", "I;16L", "I;16N"})
_DECODE_FAILURES = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    TypeError,
    struct.error,
    zlib.error,
)
_WHITE = (255, 255, 255)


class TooManyPixelsError(ImageError):
    """The header announces more pixels than are allowed; none were decoded."""


class UnsupportedImageError(ImageError):
    """The bytes are no picture of a format, or with a kind of pixel, that is read here."""


def read_image(path: Path, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode one picture to ``RGB``, or ``RGBA`` when it has transparency.

    The EXIF rotation is applied, the first frame of an animation is taken, CMYK and 16 bits a
    channel become 8-bit RGB. Metadata (place, camera, profile) does not survive.

    Args:
        path: JPEG, PNG, WebP, GIF, BMP or TIFF file.
        max_pixels: Most pixels (width times height) allowed; checked in the header, before
            decoding. Pillow's own limit of 179 million applies as well.

    Raises:
        ImageError: The file is missing, empty or truncated.
        TooManyPixelsError: Its header announces more than `max_pixels`.
        UnsupportedImageError: It is something else than a picture, or has float pixels.
    """
    if not path.is_file():
        raise ImageError(f"image must be a file, got nothing at {path}; check the path")
    if path.stat().st_size == 0:
        raise ImageError(f"image must have content, got zero bytes in {path}; copy it again")
    return _decode(path, str(path), max_pixels)


def decode_image(data: bytes, *, name: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode one picture from memory; formats, result and errors are those of `read_image`.

    Args:
        data: The content of a JPEG, PNG, WebP, GIF, BMP or TIFF file.
        name: What errors call it.
        max_pixels: As in `read_image`.
    """
    if len(data) == 0:
        raise ImageError(f"image must have content, got zero bytes in {name}; copy it again")
    return _decode(BytesIO(data), name, max_pixels)


def flatten(image: Image.Image) -> Image.Image:
    """Return a bare ``RGB`` copy, with transparency laid on white and without metadata."""
    if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
        with_alpha = image.convert("RGBA")
        result = Image.new("RGB", image.size, _WHITE)
        result.paste(with_alpha, mask=with_alpha.getchannel("A"))
    else:
        result = image.copy() if image.mode == "RGB" else image.convert("RGB")
    # Profiles in `info` would travel into files written later and change their bytes.
    result.info = {}
    return result


def letterbox(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Scale to fit inside `size` and pad with white; never crop.

    Args:
        image: Any mode; transparency is laid on white first.
        size: (width, height) in pixels.
    """
    width, height = size
    if width < 1 or height < 1:
        raise ConfigError(f"letterbox size must be positive, got {size}; pass (width, height)")
    opaque = flatten(image)
    scale = min(width / opaque.width, height / opaque.height)
    inner = (
        min(width, max(1, round(opaque.width * scale))),
        min(height, max(1, round(opaque.height * scale))),
    )
    canvas = Image.new("RGB", size, _WHITE)
    scaled = opaque if inner == opaque.size else opaque.resize(inner, Image.Resampling.LANCZOS)
    canvas.paste(scaled, ((width - inner[0]) // 2, (height - inner[1]) // 2))
    return canvas


def list_images(folder: Path) -> tuple[Path, ...]:
    """Return the pictures directly in `folder`, ``2.jpg`` before ``10.jpg``; hidden ones not."""
    if not folder.is_dir():
        return ()
    return tuple(sorted((p for p in folder.iterdir() if is_picture(p)), key=natural_order))


def is_picture(path: Path) -> bool:
    """Say whether the name is that of a picture; nothing is opened beyond the name."""
    return (
        path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def natural_order(path: Path) -> tuple[tuple[int, str], ...]:
    """Sort key under which numbers in names count as numbers."""
    parts = re.findall(r"[0-9]+|[^0-9]+", str(path).lower())
    key = tuple((int(part), "") if part[0] in "0123456789" else (-1, part) for part in parts)
    return (*key, (-1, str(path)))


def _decode(source: Path | BytesIO, name: str, max_pixels: int) -> Image.Image:
    try:
        with Image.open(source, formats=_FORMATS) as opened:
            _require_size(opened, name, max_pixels)
            opened.load()
            return _eight_bit(ImageOps.exif_transpose(opened), name)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise TooManyPixelsError(
            f"image must have at most {max_pixels} pixels, got far more in {name} ({error}); "
            "make it smaller"
        ) from error
    except UnidentifiedImageError as error:
        raise UnsupportedImageError(
            "image must be a JPEG, PNG, WebP, GIF, BMP or TIFF picture, "
            f"got something else in {name}; convert it (HEIC of a phone: export as JPEG)"
        ) from error
    except ImageError:
        raise
    except _DECODE_FAILURES as error:
        raise ImageError(
            f"image must decode completely, got a damaged or truncated file {name} ({error}); "
            "copy or export it again"
        ) from error


def _require_size(image: Image.Image, name: str, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        raise TooManyPixelsError(
            f"image must have at most {max_pixels} pixels, "
            f"got {image.width}x{image.height} in {name}; make it smaller"
        )


def _eight_bit(image: Image.Image, name: str) -> Image.Image:
    """Return `image` as bare RGB or RGBA."""
    if image.mode in _SIXTEEN_BIT_MODES:
        # Pillow's own conversion clips at 255 instead of scaling.
        gray = np.clip(np.asarray(image).astype(np.float64), 0, 65535) / 257
        result = Image.fromarray(np.rint(gray).astype(np.uint8)).convert("RGB")
        if isinstance(clear := image.info.get("transparency"), int):
            alpha = np.where(np.asarray(image) == clear, 0, 255).astype(np.uint8)
            result.putalpha(Image.fromarray(alpha))
    elif image.mode in _ALPHA_MODES or "transparency" in image.info:
        result = image.convert("RGBA")
    elif image.mode in _OPAQUE_MODES:
        result = image.convert("RGB")
    else:
        raise UnsupportedImageError(
            "image must have 8 or 16 bits a channel in gray, RGB or CMYK, "
            f"got mode {image.mode} in {name}; export it as PNG"
        )
    # Profiles in `info` would travel into files written later and change their bytes.
    result.info = {}
    return result
