"""The journey of a raw pair: every operator in its order, one function, and one reason for a drop.

decode -> size and aspect -> caption, where it is told -> segmentation -> quality -> identity ->
square framing -> caption, where a model looks -> safety -> perceptual hashes -> encoded members.
Quality and identity look at the pictures as they came, for a square no longer tells what was cut
off or how sharp it was.
"""

from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dreambooth3d.artifacts.jsonfile import JsonValue
from dreambooth3d.artifacts.shard import MASK, Pair, encode_mask, encode_pair
from dreambooth3d.errors import ConfigError
from dreambooth3d.pairs.captions import (
    Caption,
    Captioner,
    CaptionKind,
    choose_caption,
    describe_target,
)
from dreambooth3d.pairs.cutting import (
    CutPicture,
    cut_clean_reference,
    cut_photographed_reference,
    cut_target,
    frame_reference,
    frame_target,
)
from dreambooth3d.pairs.decoding import open_picture
from dreambooth3d.pairs.identity import IdentityLimits, pair_similarity
from dreambooth3d.pairs.records import (
    Picture,
    RawPair,
    Record,
    Rejected,
    Sample,
    SampleNote,
)
from dreambooth3d.pairs.refusals import side_by_side
from dreambooth3d.pairs.safety import SafetyFilter
from dreambooth3d.pairs.splits import BlockedError, Blocklist
from dreambooth3d.vision.perceptual_hash import perceptual_hash
from dreambooth3d.vision.quality import (
    QualityRules,
    measure_object,
    measure_picture,
    require_object,
    require_picture,
    require_size,
)
from dreambooth3d.vision.refusal import RefusedError
from dreambooth3d.vision.segment import Segmenter

# Whose pairs a gate judges: those made of photos that are cut out here, all, or none.
Judged: TypeAlias = Literal["photos", "all", "none"]
CaptionChoice: TypeAlias = Literal["given", "template", "model"]
# A reference has to be whole; a target may touch its border.
_REFERENCE_CUT_SHARE = 0.05


@dataclass(frozen=True, kw_only=True)
class Chain:
    """What every record goes through; picklable, and the same bytes for the same record.

    Attributes:
        size: side of the pictures of a sample, pixels.
        segmenter: finds objects where their source does not know.
        margin: free share of a reference's side around the object.
        rules: of quality.
        quality: whose pictures are held against the rules.
        limits: of the similarity of the object in reference and target.
        identity: whose pairs are held against the limits.
        caption: `given` (else by template), `template`, or `model`.
        captioner: with `model`.
        safety: refuses unsafe pictures; None lets all pass.
        blocklist: of subjects that must stay out.
    """

    size: int
    segmenter: Segmenter
    margin: float = 0.1
    rules: QualityRules = field(default_factory=QualityRules)
    quality: Judged = "photos"
    limits: IdentityLimits = field(default_factory=IdentityLimits)
    identity: Judged = "photos"
    caption: CaptionChoice = "given"
    captioner: Captioner | None = None
    safety: SafetyFilter | None = None
    blocklist: Blocklist = field(default_factory=Blocklist)

    def __call__(self, record: Record, *, label: str, is_photo: bool) -> Sample | Rejected:
        """Make a sample of a record, or say why not.

        Args:
            record: of a source; a rejected one is handed on.
            label: of the source; keys begin with it.
            is_photo: references come with their background (`Source.needs_segmentation`).
        """
        if isinstance(record, Rejected):
            return replace(record, key=f"{label}-{record.key}")
        desk = _Desk(key=f"{label}-{record.key}", label=label, is_photo=is_photo)
        try:
            return self._sample(record, desk)
        except RefusedError as refused:
            return Rejected(
                key=desk.key,
                origin=record.origin,
                reason=refused.reason,
                sentence=desk.told(refused),
                picture=desk.shown(),
                subject=record.subject,
                blocked_by=refused.entry if isinstance(refused, BlockedError) else "",
            )

    def _sample(self, record: RawPair, desk: "_Desk") -> Sample:
        self.blocklist.check(record.subject, record.aliases)
        opened = self._opened(record.target, "target", desk)
        desk.part = ""
        # Before the objects are looked for, which takes a second.
        told = self._told_caption(record)
        target = self._target(opened, record, desk)
        reference = self._reference(record, desk)
        desk.part = ""
        similarity = self._similarity(reference, target, desk)
        shown = frame_reference(reference, self.size, self.margin)
        square = frame_target(target, self.size)
        scene = desk.look_at(square.image)
        caption = told or self._described(scene)
        if self.safety is not None:
            self.safety.check(scene)
            self.safety.check(desk.look_at(shown))
        pair = Pair(
            key=desk.key,
            reference=shown,
            target=scene,
            caption=caption.text,
            meta=_meta(record, desk.label, caption, similarity),
            fields=_mask(square.mask_HW) if target.is_certain else {},
        )
        return Sample(note=_note(record, pair), members=encode_pair(pair))

    def _reference(self, record: RawPair, desk: "_Desk") -> CutPicture:
        image = self._opened(record.reference, "reference", desk)
        if desk.is_photo:
            found = cut_photographed_reference(image, record.reference_mask, self.segmenter)
        else:
            found = cut_clean_reference(image, record.reference_mask, self.size)
        cut_share = min(self.rules.max_cut_share, _REFERENCE_CUT_SHARE)
        self._check_quality(found, replace(self.rules, max_cut_share=cut_share), desk)
        return found

    def _target(self, image: Image.Image, record: RawPair, desk: "_Desk") -> CutPicture:
        desk.part = "target"
        is_judged = desk.is_under(self.quality) or desk.is_under(self.identity)
        found = cut_target(image, record.target_mask, self.segmenter, is_mask_needed=is_judged)
        self._check_quality(found, self.rules, desk)
        return found

    def _opened(self, picture: Picture, what: str, desk: "_Desk") -> Image.Image:
        # The other picture is not to blame when this one cannot be decoded.
        desk.picture, desk.part = None, what
        image = desk.look_at(open_picture(picture, name=f"the {what}"))
        if desk.is_under(self.quality):
            require_size(image.width, image.height, self.rules)
        return image

    def _check_quality(self, found: CutPicture, rules: QualityRules, desk: "_Desk") -> None:
        if not desk.is_under(self.quality):
            return
        if found.mask_HW is not None:
            require_object(measure_object(found.mask_HW), rules)
        require_picture(measure_picture(found.image, found.mask_HW), rules)

    def _similarity(self, one: CutPicture, other: CutPicture, desk: "_Desk") -> float | None:
        if not desk.is_under(self.identity):
            return None
        similarity = pair_similarity(
            one.image, other.image, reference_mask=one.mask_HW, target_mask=other.mask_HW
        )
        # Nobody can judge a comparison by one of its pictures.
        desk.pair = one.image, other.image
        self.limits.check(similarity)
        desk.pair = None
        return similarity

    def _told_caption(self, record: RawPair) -> Caption | None:
        """The caption that needs no look at the picture."""
        if self.caption == "model":
            return None
        return choose_caption(
            "" if self.caption == "template" else record.caption, record.class_noun
        )

    def _described(self, scene: Image.Image) -> Caption:
        if self.captioner is None:
            raise ConfigError("caption=model must have a captioner, got none; pass one")
        return describe_target(scene, self.captioner)


@dataclass(kw_only=True)
class _Desk:
    """What is known of the record at work, and what of it was looked at last.

    Attributes:
        picture: seen last.
        part: `reference` or `target` while one of them is at work.
        pair: two pictures that are compared.
    """

    key: str
    label: str
    is_photo: bool
    picture: Image.Image | None = None
    part: str = ""
    pair: tuple[Image.Image, Image.Image] | None = None

    def told(self, refused: RefusedError) -> str:
        """The sentence of a refusal, with the picture it is about."""
        sentence = str(refused)
        is_told = not self.part or f"the {self.part}" in sentence
        return sentence if is_told else f"the {self.part}: {sentence}"

    def shown(self) -> Image.Image | None:
        """What people would look at."""
        return self.picture if self.pair is None else side_by_side(*self.pair)

    def look_at(self, picture: Image.Image) -> Image.Image:
        self.picture = picture
        return picture

    def is_under(self, judged: Judged) -> bool:
        return judged == "all" or (judged == "photos" and self.is_photo)


def _mask(mask_HW: NDArray[np.bool_] | None) -> dict[str, bytes]:
    return {} if mask_HW is None else {MASK: encode_mask(mask_HW)}


def _meta(
    record: RawPair, label: str, caption: Caption, similarity: float | None
) -> dict[str, JsonValue]:
    """What the sample's json says; what the source knows stands beside it."""
    meta: dict[str, JsonValue] = {
        **record.meta,
        "source": label,
        "origin": record.origin,
        "subject": record.subject,
        "class_noun": record.class_noun,
        "licence": record.licence,
        "attribution": record.attribution,
        "caption_kind": _caption_kind(record, caption),
    }
    return meta if similarity is None else {**meta, "similarity": similarity}


def _caption_kind(record: RawPair, caption: Caption) -> str:
    """Where a caption comes from: one that is read again is of the kind it was."""
    told = record.meta.get("caption_kind")
    if caption.kind == "given" and isinstance(told, str) and told in get_args(CaptionKind):
        return told
    return caption.kind


def _note(record: RawPair, pair: Pair) -> SampleNote:
    return SampleNote(
        key=pair.key,
        subject=record.subject,
        target_hash=perceptual_hash(pair.target),
        reference_hash=perceptual_hash(pair.reference),
        licence=record.licence,
        attribution=record.attribution,
        split=str(record.meta.get("split", "")),
    )
