"""Pictures, whole and damaged."""

import io
import zlib
from random import Random

import numpy as np
from PIL import Image


def picture(rng: Random, side: int = 32) -> bytes:
    """A PNG of coloured cells."""
    cells = np.random.default_rng(rng.getrandbits(32)).integers(0, 200, (8, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(cells).resize((side, side), Image.Resampling.NEAREST).save(buffer, "PNG")
    return buffer.getvalue()


def cut(rng: Random) -> bytes:
    """A PNG whose second half is missing."""
    whole = picture(rng)
    return whole[: rng.randint(64, len(whole) // 2)]


def gigapixel(rng: Random) -> bytes:
    """A PNG whose header speaks of more than a gigapixel."""
    header = bytearray(picture(rng))
    side = rng.randint(40_000, 60_000)
    header[16:24] = side.to_bytes(4, "big") * 2
    header[29:33] = zlib.crc32(bytes(header[12:29])).to_bytes(4, "big")
    return bytes(header)
