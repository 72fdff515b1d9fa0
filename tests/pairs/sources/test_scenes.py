import pickle

import numpy as np
import pytest
from PIL import Image

from dreambooth3d.errors import ConfigError
from dreambooth3d.pairs.records import RawPair, Source
from dreambooth3d.pairs.sources.scenes import ScenesSource
from dreambooth3d.scenes import FIRST_HELD_OUT_SEED

SOURCE = ScenesSource(samples=10, records_per_chunk=4, pairs_per_subject=2, size=32)


def read_all(source: Source) -> list[RawPair]:
    records = [record for chunk in source.chunks() for record in source.read(chunk)]
    assert all(isinstance(record, RawPair) for record in records)
    return [record for record in records if isinstance(record, RawPair)]


def pixels(picture: bytes | Image.Image) -> np.ndarray:
    assert isinstance(picture, Image.Image)
    return np.asarray(picture)


def test_every_pair_comes_once_in_order() -> None:
    assert [chunk.num_records for chunk in SOURCE.chunks()] == [4, 4, 2]
    assert [chunk.index for chunk in SOURCE.chunks()] == [0, 1, 2]
    assert [pair.key for pair in read_all(SOURCE)] == [f"{i:08d}" for i in range(10)]


def test_pairs_share_their_subject_and_never_touch_held_out_ones() -> None:
    subjects = [pair.subject for pair in read_all(SOURCE)]
    assert subjects[0::2] == subjects[1::2]
    assert len(set(subjects)) == 5
    assert all(int(s.removeprefix("scenes-")) < FIRST_HELD_OUT_SEED for s in subjects)


def test_a_pair_is_a_view_on_white_and_a_captioned_scene_with_exact_masks() -> None:
    pair = SOURCE.render(3)
    reference, target = pixels(pair.reference), pixels(pair.target)
    assert reference.shape == target.shape == (32, 32, 3)
    assert pair.reference_mask is not None
    assert pair.target_mask is not None
    # The lens spreads the object's light by up to two pixels.
    assert (reference[~grown(pair.reference_mask, 3)] == 255).all()
    assert (reference[pair.reference_mask] != 255).any(axis=1).mean() > 0.9
    assert not (target == 255).all(axis=2).all()
    assert pair.meta["mask_share"] == round(float(pair.target_mask.mean()), 4)
    assert pair.class_noun in pair.caption
    assert str(pair.meta["background"]) in pair.caption
    assert {"reference_azimuth_deg", "target_azimuth_deg", "target_center"} <= set(pair.meta)


def test_a_size_changes_the_pictures_alone() -> None:
    small = SOURCE.render(4)
    large = ScenesSource(samples=10, pairs_per_subject=2, size=64).render(4)
    assert pixels(large.target).shape == (64, 64, 3)
    assert (small.caption, small.subject) == (large.caption, large.subject)


@pytest.mark.parametrize(
    ("index", "caption", "azimuth"),
    [
        (0, "a guitar on a wooden desk", 357.367),
        (1, "a photo of a purple striped guitar on a wooden desk", 245.929),
        (5, "a picture of a house in a city street", 181.381),
    ],
)
def test_captions_and_cameras_stay_what_they_were(index: int, caption: str, azimuth: float) -> None:
    pair = ScenesSource().render(index)
    assert pair.caption == caption
    assert pair.meta["reference_azimuth_deg"] == azimuth


def test_any_worker_renders_the_same() -> None:
    again = pickle.loads(pickle.dumps(SOURCE))  # noqa: S301
    for one, other in zip(
        SOURCE.read(SOURCE.chunks()[1]), again.read(again.chunks()[1]), strict=True
    ):
        assert isinstance(one, RawPair)
        assert isinstance(other, RawPair)
        assert one.caption == other.caption
        assert one.meta == other.meta
        assert pixels(one.reference).tobytes() == pixels(other.reference).tobytes()
        assert pixels(one.target).tobytes() == pixels(other.target).tobytes()


def test_settings_decide_the_fingerprint() -> None:
    assert SOURCE.fingerprint() == pickle.loads(pickle.dumps(SOURCE)).fingerprint()  # noqa: S301
    assert SOURCE.fingerprint() != ScenesSource(samples=10, size=32, seed=1).fingerprint()
    other = ScenesSource(samples=10, size=32, seed=1).render(5)
    assert pixels(other.target).tobytes() != pixels(SOURCE.render(5).target).tobytes()


@pytest.mark.parametrize(
    "wrong", [{"samples": 0}, {"size": 8}, {"seed": -1}, {"records_per_chunk": 0}]
)
def test_settings_have_ranges(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(wrong))} must be"):
        ScenesSource(**wrong)


def grown(mask: np.ndarray, steps: int) -> np.ndarray:
    for _ in range(steps):
        padded = np.pad(mask, 1)
        mask = padded[1:-1, 1:-1] | padded[:-2, 1:-1] | padded[2:, 1:-1]
        mask = mask | np.pad(mask, 1)[1:-1, :-2] | np.pad(mask, 1)[1:-1, 2:]
    return mask
