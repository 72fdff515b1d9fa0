from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreambooth3d.pairs.sources.pairing import spread_pairs

COUNTS = st.integers(min_value=0, max_value=13)


@given(COUNTS, COUNTS, st.integers(min_value=0, max_value=40))
def test_pairs_are_different_and_use_all_targets_equally(
    num_references: int, num_targets: int, wanted: int
) -> None:
    pairs = spread_pairs(num_references, num_targets, wanted, is_same=False)
    assert len(pairs) == len(set(pairs)) == min(wanted, num_references * num_targets)
    uses = Counter(target for _, target in pairs)
    assert all(0 <= i < num_references and 0 <= j < num_targets for i, j in pairs)
    if pairs:
        assert max(uses.values()) - min(uses.get(j, 0) for j in range(num_targets)) <= 1


@given(COUNTS, st.integers(min_value=0, max_value=40))
def test_no_picture_is_paired_with_itself(count: int, wanted: int) -> None:
    pairs = spread_pairs(count, count, wanted, is_same=True)
    assert len(pairs) == len(set(pairs)) == min(wanted, max(0, count * (count - 1)))
    assert all(i != j for i, j in pairs)
    for side in range(2):
        uses = Counter(pair[side] for pair in pairs)
        if pairs and wanted >= count:
            assert max(uses.values()) - min(uses.get(i, 0) for i in range(count)) <= 1


@pytest.mark.parametrize(
    ("pictures", "wanted", "pairs"),
    [
        # Few pairs of many photos come from all around, each with the opposite view.
        (12, 4, ((6, 0), (9, 3), (0, 6), (3, 9))),
        (2, 8, ((1, 0), (0, 1))),
        (1, 8, ()),
        (0, 8, ()),
    ],
)
def test_few_pairs_come_from_all_sides(
    pictures: int, wanted: int, pairs: tuple[tuple[int, int], ...]
) -> None:
    assert spread_pairs(pictures, pictures, wanted, is_same=True) == pairs
