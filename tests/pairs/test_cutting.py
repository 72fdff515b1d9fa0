"""A photo is cut once for all its pairs, and the pairs are the same as if it was cut again."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dreambooth3d.pairs.chain import Chain
from dreambooth3d.pairs.cutting import (
    RememberingSegmenter,
    cut_photographed_reference,
    cut_target,
    frame_target,
)
from dreambooth3d.pairs.parts import make_part
from dreambooth3d.pairs.records import RawPair, Rejected, Sample
from dreambooth3d.pairs.sources.registry import parse_source
from dreambooth3d.vision.refusal import RefusedError, UncertainCutError
from dreambooth3d.vision.segment import build_segmenter
from tests.pairs.corpora import chain, object_photo


class Counting:
    """The real segmenter; counts how often it is asked."""

    def __init__(self) -> None:
        self.cut = build_segmenter("plain")
        self.num_asked = 0

    def __call__(self, image: Image.Image) -> np.ndarray:
        self.num_asked += 1
        return self.cut(image)


def test_a_photo_is_cut_once() -> None:
    counting = Counting()
    remembering = RememberingSegmenter(counting)
    for _ in range(2):
        for seed in (1, 2):
            photo = object_photo(seed)
            np.testing.assert_array_equal(remembering(photo), counting.cut(photo))
    assert counting.num_asked == 2
    with pytest.raises(ValueError, match="read-only"):
        remembering(object_photo(1))[0, 0] = 1


def test_memory_is_bounded_and_refusals_are_not_kept() -> None:
    counting = Counting()
    remembering = RememberingSegmenter(counting, budget_bytes=160 * 120 * 4)
    for seed in (1, 2, 1):
        remembering(object_photo(seed))
    assert counting.num_asked == 3
    for _ in range(2):
        with pytest.raises(RefusedError):
            remembering(Image.new("RGB", (64, 64), "red"))
    assert counting.num_asked == 5


def test_both_pairs_of_two_photos_share_their_cuts(tmp_path: Path) -> None:
    (tmp_path / "mug").mkdir()
    for seed in (1, 2):
        object_photo(seed).save(tmp_path / "mug" / f"{seed}.png")
        (tmp_path / "mug" / f"{seed}.txt").write_text("a mug")
    source, counting = parse_source(f"captures:{tmp_path}"), Counting()
    own = chain(segmenter=counting, identity="none")
    part = make_part(source, source.chunks()[0], own, label="s", name="s-000000.tar")
    assert len(part.record.samples) == 2
    assert counting.num_asked == 2


def test_a_wide_target_is_cropped_around_its_object() -> None:
    photo = Image.new("RGB", (300, 100), "white")
    photo.paste(object_photo(1).crop((50, 30, 110, 90)), (220, 20))
    found = cut_target(photo, None, build_segmenter("plain"), is_mask_needed=False)
    assert found.mask_HW is not None
    square = np.asarray(frame_target(found, 50).image)
    assert (square != 255).any(axis=2)[10:40, 20:40].mean() > 0.5


def test_an_uncertain_cut_is_enough_for_a_target_and_never_for_a_reference() -> None:
    photo = object_photo(size=(160, 100))
    rough = np.zeros((100, 160), dtype=np.float32)
    rough[20:80, 60:100] = 1
    asked: list[Image.Image] = []

    def doubtful(image: Image.Image) -> np.ndarray:
        asked.append(image)
        raise UncertainCutError("photo must be plain", rough)

    cut = RememberingSegmenter(doubtful)
    with pytest.raises(UncertainCutError, match="must be plain") as caught:
        cut_photographed_reference(photo, None, cut)
    assert caught.value.reason == "uncertain_cut"
    found = cut_target(photo, None, cut, is_mask_needed=True)
    assert not found.is_certain
    assert found.alpha_HW is not None
    assert np.array_equal(found.alpha_HW, rough)
    assert len(asked) == 1
    made = make_sample(chain(size=64, segmenter=doubtful), photo)
    assert isinstance(made, Rejected)
    assert made.reason == "uncertain_cut"


def test_what_is_uncertain_is_no_mask_of_a_sample() -> None:
    photo = object_photo(size=(160, 100))
    plain = build_segmenter("plain")

    def doubtful(image: Image.Image) -> np.ndarray:
        alpha_HW = plain(image)
        if image.getpixel((0, 0)) == (255, 255, 255):
            return alpha_HW
        raise UncertainCutError("photo must be plain", alpha_HW)

    gray = object_photo(size=(160, 100), ground="gray")
    certain = make_sample(chain(size=64, segmenter=plain), photo, gray)
    uncertain = make_sample(chain(size=64, segmenter=doubtful), photo, gray)
    assert isinstance(certain, Sample)
    assert isinstance(uncertain, Sample)
    assert set(certain.members) - set(uncertain.members) == {"mask.png"}
    assert certain.members["target.jpg"] == uncertain.members["target.jpg"]


def make_sample(
    operators: Chain, reference: Image.Image, target: Image.Image | None = None
) -> Sample | Rejected:
    record = RawPair(
        key="k", reference=reference, target=target or reference, subject="s", origin="here",
        class_noun="box",
    )  # fmt: skip
    own = replace(operators, quality="none", identity="none")
    return own(record, label="captures", is_photo=True)
