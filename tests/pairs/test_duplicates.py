"""Near-duplicates are those that plain comparison finds, whatever the corpus looks like."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dreambooth3d.errors import ConfigError
from dreambooth3d.pairs import duplicates
from dreambooth3d.pairs.duplicates import near_duplicates

Hashes = NDArray[np.uint64]
WORD = st.integers(0, 2**64 - 1)
# Few centres and few flipped bits: groups, chains and near misses instead of random noise.
FLIPS = st.lists(st.integers(0, 63), max_size=5)
ITEM = st.tuples(st.integers(0, 2), FLIPS, st.integers(0, 1), FLIPS)


def by_comparison(target: Hashes, reference: Hashes, max_distance: int) -> list[bool]:
    kept: list[int] = []
    found = []
    for i in range(len(target)):
        is_close = any(
            int(target[i] ^ target[j]).bit_count() <= max_distance
            and int(reference[i] ^ reference[j]).bit_count() <= max_distance
            for j in kept
        )
        found.append(is_close)
        if not is_close:
            kept.append(i)
    return found


def flipped(word: int, bits: list[int]) -> int:
    for bit in bits:
        word ^= 1 << bit
    return word


def words(values: list[int]) -> Hashes:
    return np.array(values, dtype=np.uint64)


def random(rng: np.random.Generator, count: int) -> Hashes:
    return rng.integers(0, 2**64, count, dtype=np.uint64)


def noise(rng: np.random.Generator, count: int, bits: int) -> Hashes:
    mask = np.zeros(count, dtype=np.uint64)
    for _ in range(bits):
        mask ^= np.uint64(1) << rng.integers(0, 64, count, dtype=np.uint64)
    return mask


@pytest.mark.parametrize("few", [0, 3, 512])
@settings(deadline=None, max_examples=60)
@given(
    centres=st.lists(WORD, min_size=3, max_size=3),
    items=st.lists(ITEM, max_size=40),
    max_distance=st.integers(0, 8),
)
def test_finds_what_comparison_finds(
    few: int, centres: list[int], items: list[tuple[int, list[int], int, list[int]]],
    max_distance: int,
) -> None:  # fmt: skip
    target = words([flipped(centres[t], bits) for t, bits, _, _ in items])
    reference = words([flipped(centres[r], bits) for _, _, r, bits in items])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "_FEW", few)
        found = near_duplicates(target, reference, max_distance=max_distance)
    assert found.tolist() == by_comparison(target, reference, max_distance)


def test_a_larger_corpus_with_groups_and_chains() -> None:
    rng = np.random.default_rng(5)
    groups = np.repeat(random(rng, 40), 30) ^ noise(rng, 1200, 3)
    chain = np.bitwise_xor.accumulate(noise(rng, 600, 1))
    target = np.concatenate([groups, chain, random(rng, 200)])
    reference = np.concatenate([noise(rng, 1200, 2), noise(rng, 600, 1), noise(rng, 200, 1)])
    mixed = rng.permutation(len(target))
    for order in (np.arange(len(target)), mixed):
        found = near_duplicates(target[order], reference[order], max_distance=4)
        assert found.tolist() == by_comparison(target[order], reference[order], 4)
        assert 500 < found.sum() < 1900


@pytest.mark.parametrize("end", [1, 511, 700, 1300])
def test_pairs_at_the_end_change_nothing_before_them(end: int) -> None:
    rng = np.random.default_rng(1)
    target = np.repeat(random(rng, 30), 50)[rng.permutation(1500)] ^ noise(rng, 1500, 4)
    reference = noise(rng, 1500, 3)
    whole = near_duplicates(target, reference)
    assert (near_duplicates(target[:end], reference[:end]) == whole[:end]).all()


def test_both_pictures_must_be_alike() -> None:
    rng = np.random.default_rng(2)
    word = random(rng, 1000)
    same = np.full(1000, 77, dtype=np.uint64)
    assert near_duplicates(word, same).sum() == near_duplicates(same, word).sum() == 0
    assert near_duplicates(same, same).sum() == 999


def test_the_limit_itself_is_near() -> None:
    target, reference = words([0, 0b1111, 0b1_1111]), words([0, 0b1111 << 60, 0])
    assert near_duplicates(target, reference, max_distance=4).tolist() == [False, True, False]
    assert near_duplicates(target, reference, max_distance=3).tolist() == [False] * 3


def test_a_slow_film_keeps_a_frame_now_and_then() -> None:
    film = words([2**n - 1 for n in range(40)])
    still = np.zeros(40, dtype=np.uint64)
    found = near_duplicates(film, still, max_distance=4)
    assert np.flatnonzero(~found).tolist() == list(range(0, 40, 5))


@pytest.mark.parametrize("kind", ["equal", "distinct", "ball", "one reference"])
def test_large_and_unfriendly_corpora_end_soon(kind: str) -> None:
    rng, count = np.random.default_rng(3), 30_000
    zeros = np.zeros(count, dtype=np.uint64)
    target = {"equal": zeros, "ball": noise(rng, count, 2)}.get(kind, random(rng, count))
    reference = random(rng, count) if kind == "distinct" else zeros
    found = near_duplicates(target, reference)
    expected = {"equal": count - 1, "ball": count - 1, "distinct": 0, "one reference": 0}
    assert found.sum() == expected[kind]


def test_planted_copies_are_found_among_many() -> None:
    rng = np.random.default_rng(4)
    target, reference = random(rng, 100_000), random(rng, 100_000)
    copies = np.arange(90_000, 100_000)
    target[copies] = target[copies - 50_000] ^ noise(rng, 10_000, 4)
    reference[copies] = reference[copies - 50_000] ^ noise(rng, 10_000, 4)
    found = near_duplicates(target, reference)
    assert np.flatnonzero(found).tolist() == copies.tolist()


def test_inputs_are_checked() -> None:
    assert near_duplicates(words([]), words([])).tolist() == []
    assert near_duplicates(words([1]), words([2])).tolist() == [False]
    with pytest.raises(ConfigError, match="max_distance must be 0 to 8 bits, got 9"):
        near_duplicates(words([1]), words([1]), max_distance=9)
    with pytest.raises(ConfigError, match="two lists of one length"):
        near_duplicates(words([1]), words([1, 2]))
