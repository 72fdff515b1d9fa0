from itertools import pairwise

from dreambooth3d.scenes import FIRST_HELD_OUT_SEED, SEED_RANGES


def test_no_two_trainings_share_a_seed_and_none_reaches_the_held_out_ones() -> None:
    ranges = sorted(SEED_RANGES.values(), key=lambda seeds: seeds.start)
    assert all(one.stop <= other.start for one, other in pairwise(ranges))
    assert ranges[-1].stop <= FIRST_HELD_OUT_SEED
