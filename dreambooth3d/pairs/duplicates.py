"""Near-duplicates across a corpus: exact, linear in memory, decided in corpus order.

A pair is left out when a pair that is kept before it looks the same: both hashes within
`max_distance` bits. Two facts follow: every pair left out has a kept one like it, and no two kept
ones are alike. A slow film thus keeps a frame now and then instead of its first frame alone.

Candidates come from the pigeonhole principle: of d + 1 bands of a hash, d wrong bits leave one
band untouched, so a band of the target and a band of the reference agree as a whole.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from dreambooth3d.errors import ConfigError
from dreambooth3d.vision.perceptual_hash import HASH_BITS

# More bands than nine are too narrow to tell pictures apart: every pair would meet every other.
MAX_DISTANCE = 8
# Up to this many pairs are compared one with all.
_FEW = 512
_ODD = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F], dtype=np.uint64)
_ONE, _HALF = np.uint64(1), np.uint64(32)

Hashes = NDArray[np.uint64]
Indices = NDArray[np.int64]
Flags = NDArray[np.bool_]


def near_duplicates(target: Hashes, reference: Hashes, *, max_distance: int = 4) -> Flags:
    """Say of every pair whether one that is kept before it looks the same, (N,).

    What is said of a pair depends on the pairs before it alone.

    Args:
        target, reference: perceptual hashes in corpus order, (N,) each.
        max_distance: bits, 0 to 8; both hashes of two pairs must be at most that far apart.
    """
    if not 0 <= max_distance <= MAX_DISTANCE:
        raise ConfigError(
            f"max_distance must be 0 to {MAX_DISTANCE} bits, got {max_distance}; use 4"
        )
    if target.shape != reference.shape or target.ndim != 1:
        raise ConfigError(
            f"target and reference hashes must be two lists of one length, "
            f"got shapes {target.shape} and {reference.shape}; pass one of each for every pair"
        )
    search = _Search(
        target.astype(np.uint64, copy=False), reference.astype(np.uint64, copy=False), max_distance
    )
    is_duplicate = np.ones(len(target), dtype=np.bool_)
    is_duplicate[search.kept(np.arange(len(target), dtype=np.int64))] = False
    return is_duplicate


class _Search:
    """The hashes of a corpus, and how far apart two of them may be."""

    def __init__(self, target: Hashes, reference: Hashes, max_distance: int) -> None:
        self._target = target
        self._reference = reference
        self._max_distance = max_distance

    def kept(self, items: Indices) -> Indices:
        """Return, in order, those of `items` (ascending) that no kept one before is close to."""
        if len(items) <= _FEW:
            return self._kept_of_few(items)
        everyone = np.ones(len(items), dtype=np.bool_)
        has_earlier = self._near(items, answers=everyone, asks=everyone)
        is_late = has_earlier & ~self._near(items, answers=~has_earlier, asks=has_earlier)
        # These are close only to pairs whose own fate is open: chains, rare and short.
        rest = items[is_late]
        early = self.kept(rest[: len(rest) // 2])
        late = self.kept(self._not_near(early, rest[len(rest) // 2 :]))
        return np.sort(np.concatenate([items[~has_earlier], early, late]))

    def _kept_of_few(self, items: Indices) -> Indices:
        is_open = np.ones(len(items), dtype=np.bool_)
        for place, item in enumerate(items):
            if is_open[place]:
                is_open[place + 1 :] &= ~self._is_close(items[place + 1 :], item)
        return items[is_open]

    def _not_near(self, kept: Indices, items: Indices) -> Indices:
        """Return those of `items`, all later than `kept`, that are close to none of `kept`."""
        both = np.concatenate([kept, items])
        answers = np.arange(len(both)) < len(kept)
        return items[~self._near(both, answers=answers, asks=~answers)[len(kept) :]]

    def _near(self, items: Indices, *, answers: Flags, asks: Flags) -> Flags:
        """Say which of `items` ask and have an earlier one close by that answers."""
        near = np.zeros(len(items), dtype=np.bool_)
        if not (answers.any() and asks.any()):
            return near
        for target_mask in _bands(self._max_distance):
            for reference_mask in _bands(self._max_distance):
                buckets = self._buckets(items, target_mask, reference_mask)
                places, starts = _by_bucket(buckets, answers)
                asking = np.flatnonzero(asks[places] & ~near[places])
                found = self._ask(items[places], answers[places], starts, asking)
                near[places[found]] = True
        return near

    def _buckets(self, items: Indices, target_mask: np.uint64, reference_mask: np.uint64) -> Hashes:
        """Mix the bits under the masks to one word; different bits may share one, rarely."""
        mixed: Hashes = (self._target[items] & target_mask) * _ODD[0]
        mixed ^= mixed >> _HALF
        mixed += self._reference[items] & reference_mask
        mixed *= _ODD[1]
        return mixed

    def _ask(self, items: Indices, answers: Flags, starts: Indices, asking: Indices) -> Indices:
        """Return the slots of `asking` that a slot of their bucket answers; all are by bucket."""
        found = []
        offset = 0
        while len(asking):
            other = starts[asking] + offset
            is_before = answers[other] & (items[other] < items[asking])
            asking, other = asking[is_before], other[is_before]
            is_close = self._is_close(items[asking], items[other])
            found.append(asking[is_close])
            asking = asking[~is_close]
            offset += 1
        return np.concatenate([*found, np.zeros(0, dtype=np.int64)])

    def _is_close(self, first: Indices, second: Indices | np.int64) -> Flags:
        limit = self._max_distance
        target = np.bitwise_count(self._target[first] ^ self._target[second])
        reference = np.bitwise_count(self._reference[first] ^ self._reference[second])
        return (target <= limit) & (reference <= limit)


def _by_bucket(buckets: Hashes, answers: Flags) -> tuple[Indices, Indices]:
    """Order places by bucket, those that answer first; return them and where each bucket starts."""
    # One word holds bucket, flag and place: sorting words is many times faster than an argsort.
    # Buckets whose upper bits are the same by chance only add candidates.
    place_bits = np.uint64(max(1, (len(buckets) - 1).bit_length()))
    words = buckets >> (place_bits + _ONE) << _ONE
    words |= ~answers
    words <<= place_bits
    words |= np.arange(len(buckets), dtype=np.uint64)
    words.sort()
    places = (words & ((_ONE << place_bits) - _ONE)).astype(np.int64)
    words >>= place_bits + _ONE
    is_start = np.concatenate([[True], words[1:] != words[:-1]])
    return places, np.flatnonzero(is_start)[np.cumsum(is_start) - 1]


def _bands(max_distance: int) -> Iterator[np.uint64]:
    """Yield masks that share the bits among `max_distance` + 1 bands."""
    # Neighbouring bits are neighbouring frequencies and alike; strides keep every band telling.
    for band in range(max_distance + 1):
        yield np.uint64(sum(1 << bit for bit in range(band, HASH_BITS, max_distance + 1)))
