"""Every operator is in the chain, and each refuses with its own reason."""

import io
import pickle
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

from dreambooth3d.artifacts.shard import decode_pair, encode_png
from dreambooth3d.errors import ConfigError
from dreambooth3d.pairs.chain import Chain
from dreambooth3d.pairs.identity import IdentityLimits
from dreambooth3d.pairs.records import RawPair, Record, Rejected, Sample
from dreambooth3d.pairs.sources.scenes import ScenesSource
from dreambooth3d.pairs.splits import Blocklist
from dreambooth3d.vision.perceptual_hash import perceptual_hash
from dreambooth3d.vision.quality import QualityRules
from dreambooth3d.vision.refusal import RefusedError
from tests.pairs.corpora import chain, object_photo, png, two_boxes

NOTHING_TO_SEE = (
    "blocklisted", "unreadable_picture", "unsupported_picture", "too_many_pixels",
)  # fmt: skip
RULES = QualityRules(min_side=32, min_object_side=12)


def photos(**changes: Any) -> RawPair:
    """Two photos of one object that every gate lets through."""
    fields: dict[str, Any] = {
        "key": "k1", "subject": "box", "origin": "box/1.png", "caption": "a box on a table",
        "class_noun": "box", "reference": png(object_photo(1)), "target": png(object_photo(2)),
    }  # fmt: skip
    return RawPair(**(fields | changes))


def strict(**settings: Any) -> Chain:
    return chain(**({"rules": RULES, "identity": "none"} | settings))


def run(record: Record, chain: Chain, *, is_photo: bool = True) -> Sample | Rejected:
    return chain(record, label="captures", is_photo=is_photo)


def sample_of(record: Record, chain: Chain, *, is_photo: bool = True) -> Sample:
    made = run(record, chain, is_photo=is_photo)
    assert isinstance(made, Sample), made
    return made


class Refuses:
    """A real filter of one rule: nothing is safe."""

    def check(self, picture: Image.Image) -> None:
        raise RefusedError("unsafe", "score must be below 0.5, got 1")

    def fingerprint(self) -> str:
        return "refuses"


def truncated() -> bytes:
    return png(object_photo(1))[:500]


def with_header(side: int) -> bytes:
    """A PNG that announces a huge picture."""
    whole = bytearray(png(object_photo(1)))
    whole[16:24] = side.to_bytes(4, "big") * 2
    whole[29:33] = zlib.crc32(bytes(whole[12:29])).to_bytes(4, "big")
    return bytes(whole)


def dark() -> Image.Image:
    return object_photo(1).point(lambda value: 255 if value == 255 else value // 20)


def bright() -> Image.Image:
    return object_photo(1).point(lambda value: 252 + value % 2 if value < 255 else 255)


def grey() -> Image.Image:
    photo = Image.new("RGB", (160, 120), "white")
    photo.paste((128, 128, 128), (50, 30, 110, 90))
    return photo


def cut_off() -> Image.Image:
    """The object leaves the picture on the left, seen by its alpha."""
    photo = object_photo(1).convert("RGBA")
    alpha = np.zeros((120, 160), np.uint8)
    alpha[20:100, :60] = 255
    photo.putalpha(Image.fromarray(alpha))
    return photo


@pytest.mark.parametrize(
    ("reason", "changes", "settings"),
    [
        ("unreadable_picture", {"target": truncated()}, {}),
        ("unreadable_picture", {"reference": b""}, {}),
        ("unsupported_picture", {"target": b"<svg></svg>"}, {}),
        ("too_many_pixels", {"target": with_header(60_000)}, {}),
        ("too_small", {"reference": png(object_photo(1, (40, 30)))}, {}),
        ("bad_aspect", {"target": png(object_photo(1, (500, 100)))}, {}),
        ("no_object", {"reference": png(Image.new("RGB", (160, 120), "red"))}, {}),
        ("object_too_small", {"reference": png(object_photo(1, box=0.08))}, {}),
        ("object_too_large", {"target": object_photo(1), "target_mask": np.ones((120, 160), bool)},
         {}),
        ("object_cut", {"reference": cut_off()}, {}),
        ("object_in_pieces", {"reference": png(two_boxes())}, {}),
        ("blurred", {"target": png(object_photo(1).filter(ImageFilter.GaussianBlur(8)))},
         {"rules": QualityRules(min_sharpness=2000, min_side=32)}),
        ("too_dark", {"reference": png(dark())}, {}),
        ("too_bright", {"target": png(bright()), "target_mask": np.ones((120, 160), bool)},
         {"rules": QualityRules(max_coverage=1.0, max_cut_share=4.0, min_side=32)}),
        ("flat_colours", {"reference": png(grey())}, {}),
        ("same_picture", {"target": png(object_photo(1))}, {"identity": "photos"}),
        ("not_same_object", {}, {"identity": "photos", "limits": IdentityLimits(lowest=0.999,
                                                                             highest=1.0)}),
        ("bad_caption", {"caption": "\x00 ", "class_noun": ""}, {}),
        ("unsafe", {}, {"safety": Refuses()}),
        ("blocklisted", {}, {"blocklist": Blocklist.of(["BOX"])}),
    ],
)  # fmt: skip
def test_every_reason_is_counted_with_a_sentence(
    reason: str, changes: dict[str, Any], settings: dict[str, Any]
) -> None:
    made = run(photos(**changes), strict(**settings))
    assert isinstance(made, Rejected)
    assert made.reason == reason, made.sentence
    assert made.key == "captures-k1"
    assert made.origin == "box/1.png"
    assert " must " in made.sentence
    assert (made.picture is not None) == (reason not in NOTHING_TO_SEE)


@pytest.mark.parametrize(
    ("changes", "settings", "begins"),
    [
        ({"reference": png(object_photo(1, box=0.08))}, {}, "the reference: "),
        ({"target": png(object_photo(1, (40, 30)))}, {}, "the target: "),
        ({"reference": b""}, {}, "image must have content, got zero bytes in the reference;"),
        ({}, {"safety": Refuses()}, "score must"),
        ({"caption": " ", "class_noun": ""}, {}, "caption"),
    ],
)
def test_a_refusal_says_which_picture_it_is_about(
    changes: dict[str, Any], settings: dict[str, Any], begins: str
) -> None:
    made = run(photos(**changes), strict(**settings))
    assert isinstance(made, Rejected)
    assert made.sentence.startswith(begins)


def test_pictures_that_were_compared_are_shown_beside_each_other() -> None:
    limits = IdentityLimits(lowest=0.999, highest=1.0)
    made = run(photos(), strict(identity="photos", limits=limits))
    assert isinstance(made, Rejected)
    assert made.picture is not None
    halves = np.split(np.asarray(made.picture), 2, axis=1)
    assert halves[0].shape == (160, 160, 3)
    assert (halves[0] != halves[1]).any()
    # Both hold a picture, not the white around it alone.
    assert all((half < 200).any() for half in halves)


def test_a_pair_that_passes_is_a_framed_reference_a_square_target_and_a_note() -> None:
    made = sample_of(photos(licence="CC-BY-4.0", attribution="Ada"), strict())
    pair = decode_pair(made.note.key, made.members)
    assert pair.reference.size == pair.target.size == (32, 32)
    corners = np.asarray(pair.reference)[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners == 255).all()
    assert pair.caption == "a box on a table"
    assert pair.meta["caption_kind"] == "given"
    assert pair.meta["source"] == "captures"
    assert (pair.meta["licence"], pair.meta["attribution"]) == ("CC-BY-4.0", "Ada")
    assert (made.note.subject, made.note.licence) == ("box", "CC-BY-4.0")
    assert made.note.reference_hash == perceptual_hash(pair.reference)


@pytest.mark.parametrize(
    ("told", "kind"), [("template", "template"), ("model", "model"), ("x", "given"), (7, "given")]
)
def test_a_caption_that_is_read_again_stays_of_its_kind(told: object, kind: str) -> None:
    again = photos(meta={"caption_kind": told})
    made = sample_of(again, strict())
    assert decode_pair("k", made.members).meta["caption_kind"] == kind
    made = sample_of(again, strict(caption="template"))
    assert decode_pair("k", made.members).meta["caption_kind"] == "template"


def test_similarity_is_measured_where_pairs_are_judged() -> None:
    loose = strict(identity="all", limits=IdentityLimits(lowest=-1, highest=1))
    meta = decode_pair("k", sample_of(photos(), loose).members).meta
    assert isinstance(meta["similarity"], float)
    assert "similarity" not in decode_pair("k", sample_of(photos(), strict()).members).meta


@pytest.mark.parametrize(
    ("caption", "text"), [("given", "a box on a table"), ("template", "a photo of a box")]
)
def test_captions_are_a_choice(caption: str, text: str) -> None:
    assert sample_of(photos(), strict(caption=caption)).members["txt"].decode() == text


def test_renders_keep_their_pixels() -> None:
    for index in range(4):
        raw = ScenesSource(size=32).render(index)
        made = sample_of(raw, chain(), is_photo=False)
        assert isinstance(raw.reference, Image.Image)
        assert isinstance(raw.target, Image.Image)
        assert made.members["reference.png"] == encode_png(raw.reference)
        buffer = io.BytesIO()
        raw.target.save(buffer, "JPEG", quality=95, subsampling=0)
        assert made.members["target.jpg"] == buffer.getvalue()


def test_renders_are_judged_when_all_are() -> None:
    raw = ScenesSource(size=32).render(0)
    made = run(raw, strict(quality="all", rules=QualityRules(min_side=64)), is_photo=False)
    assert isinstance(made, Rejected)
    assert made.reason == "too_small"
    assert isinstance(run(raw, strict(quality="all", rules=RULES)), Sample | Rejected)


def test_a_clean_square_stays_as_it_is_and_others_are_framed() -> None:
    plain, busy = object_photo(1, (32, 32)), Image.effect_noise((32, 32), 80).convert("RGB")
    for reference in (plain, busy):
        made = sample_of(photos(reference=png(reference)), strict(), is_photo=False)
        assert made.members["reference.png"] == encode_png(reference)
    large = sample_of(photos(reference=png(object_photo(1))), strict(), is_photo=False)
    assert decode_pair("k", large.members).reference.size == (32, 32)
    made = run(photos(reference=png(busy.resize((64, 64)))), strict(), is_photo=False)
    assert isinstance(made, Rejected)
    assert made.reason == "no_object"


def test_what_a_source_rejected_is_handed_on() -> None:
    told = Rejected(key="k", origin="row 1", reason="bad_row", sentence="row must be a row, got 1")
    made = run(told, strict())
    assert isinstance(made, Rejected)
    assert (made.key, made.reason, made.sentence) == ("captures-k", "bad_row", told.sentence)


def test_an_error_that_is_no_refusal_is_not_swallowed() -> None:
    with pytest.raises(ConfigError, match="mask must have the picture's size"):
        run(photos(target_mask=np.ones((3, 3), bool)), strict(quality="none"))


def test_workers_get_the_same_chain() -> None:
    again = pickle.loads(pickle.dumps(strict()))  # noqa: S301
    assert sample_of(photos(), again) == sample_of(photos(), strict())
