import numpy as np
import pytest

from dreambooth3d.pairs.build import build_pair, build_pairs
from dreambooth3d.pairs.config import PairsConfig
from dreambooth3d.scenes import FIRST_HELD_OUT_SEED

CONFIG = PairsConfig(samples=10, samples_per_shard=4, pairs_per_subject=2, size=32)


def test_pairs_share_their_subject_and_never_touch_held_out_ones() -> None:
    pairs = [pair for shard in range(CONFIG.num_shards) for pair in build_pairs(CONFIG, shard)]
    assert [p.key for p in pairs] == [f"{i:08d}" for i in range(10)]
    subjects = [str(p.meta["subject"]) for p in pairs]
    assert subjects[0::2] == subjects[1::2]
    assert len(set(subjects)) == 5
    assert all(int(s.removeprefix("scenes-")) < FIRST_HELD_OUT_SEED for s in subjects)


def test_a_pair_is_a_view_on_white_and_a_captioned_scene() -> None:
    pair = build_pair(CONFIG, 3)
    reference, target = np.asarray(pair.reference), np.asarray(pair.target)
    assert reference.shape == target.shape == (32, 32, 3)
    assert (reference[0, 0] == 255).all()
    assert (reference != 255).any()
    assert not (target == 255).all(axis=2).all()
    assert str(pair.meta["class_noun"]) in pair.caption
    assert str(pair.meta["background"]) in pair.caption


def test_the_seed_decides_everything() -> None:
    first, again = build_pair(CONFIG, 5), build_pair(CONFIG, 5)
    assert first.caption == again.caption
    assert first.target.tobytes() == again.target.tobytes()
    other = build_pair(PairsConfig(samples=10, size=32, seed=1), 5)
    assert other.target.tobytes() != first.target.tobytes()


@pytest.mark.parametrize(("samples", "per_shard", "shards"), [(8, 4, 2), (9, 4, 3), (1, 4, 1)])
def test_shards_hold_every_sample_once(samples: int, per_shard: int, shards: int) -> None:
    config = PairsConfig(samples=samples, samples_per_shard=per_shard, size=32)
    assert config.num_shards == shards
    counts = [sum(1 for _ in build_pairs(config, j)) for j in range(shards)]
    assert sum(counts) == samples
