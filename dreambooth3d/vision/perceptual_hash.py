"""A 64-bit perceptual hash: pictures that look alike differ in few bits.

The sign pattern of the lowest frequencies of a cosine transform, as in Zauner 2010, "Implementation
and benchmarking of perceptual image hash functions". Everything after decoding is integer
arithmetic, so that every machine and library version gives the same bits.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

HASH_BITS = 64
_SIDE = 32
_SCALE = 2**14
# Coefficients by rising frequency; the first is the mean brightness and is left out.
_ORDER = sorted(((u, v) for u in range(_SIDE) for v in range(_SIDE)), key=lambda p: (sum(p), p))
_ROWS, _COLUMNS = np.array(_ORDER[1 : HASH_BITS + 1]).T
_LOW = int(max(_ROWS.max(), _COLUMNS.max())) + 1


def perceptual_hash(picture: Image.Image) -> int:
    """Hash a picture of any mode and size to 0..2**64 - 1; transparency counts as white."""
    small = _on_white(picture).resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
    basis = _cosines()
    coefficients = basis @ np.asarray(small, dtype=np.int64) @ basis.T
    low = coefficients[_ROWS, _COLUMNS]
    middle = np.sort(low)[HASH_BITS // 2 - 1 : HASH_BITS // 2 + 1].sum()
    bits = np.packbits(2 * low > middle)
    return int.from_bytes(bits.tobytes(), "big")


def hamming(first: int, second: int) -> int:
    """Count the bits in which two hashes differ."""
    return (first ^ second).bit_count()


def _on_white(picture: Image.Image) -> Image.Image:
    """Return the picture in 8-bit gray."""
    if "A" not in picture.getbands() and "transparency" not in picture.info:
        return picture.convert("L")
    with_alpha = picture.convert("RGBA")
    page = Image.new("RGB", picture.size, (255, 255, 255))
    page.paste(with_alpha, mask=with_alpha.getchannel("A"))
    return page.convert("L")


@lru_cache(maxsize=1)
def _cosines() -> NDArray[np.int64]:
    """Lowest rows of the DCT-II matrix in fixed point, (frequencies, samples)."""
    phase = np.outer(np.arange(_LOW), 2 * np.arange(_SIDE) + 1) * (np.pi / (2 * _SIDE))
    rows: NDArray[np.int64] = np.rint(np.cos(phase) * _SCALE).astype(np.int64)
    return rows
