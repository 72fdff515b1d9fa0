"""Settings of the pairs stage."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from dreambooth3d.artifacts.settings import require_choices, require_range, resource
from dreambooth3d.errors import ConfigError
from dreambooth3d.pairs.chain import CaptionChoice, Judged
from dreambooth3d.pairs.duplicates import MAX_DISTANCE
from dreambooth3d.vision.segment import SegmenterName

Precision: TypeAlias = Literal["fp32", "bf16"]


@dataclass(frozen=True, kw_only=True)
class PairsConfig:
    """What pairs are made of, and what is done to them.

    Attributes:
        sources: where objects come from, each `kind` or `kind:URL`: `scenes` (the embedded
            procedural world), `captures`, `subjects200k`, `meshes`, `webdataset`.
        source_settings: of one kind of source, each `kind.name=value`, such as `meshes.up=z`.
        samples: pairs of `scenes`.
        pairs_per_subject: targets of the same object, where a source has a choice.
        size: side of the square pictures, in pixels.
        margin: free share of a reference's side around the object.
        segmentation: how objects are found where their source does not know.
        segmentation_weights: ONNX file for `birefnet`; empty takes the pinned one.
        quality: whose pictures have to be sharp, lit and whole: `photos` (of sources whose objects
            are cut out), `all`, or `none`.
        quality_rules: changes to `vision.quality.QualityRules`, each `name=value`.
        identity: whose pairs have to show one object in two pictures; choices as above.
        min_similarity, max_similarity: of the object in both pictures, -1 to 1.
        duplicate_bits: pairs whose hashes differ in at most so many bits are one; -1 keeps all.
        caption: `given` (by template where there is none), `template`, or `model`.
        caption_model: folder, or `owner/name@commit` of the hub.
        safety_model: image classifier that refuses pictures, likewise; empty asks none.
        safety_label, safety_threshold: class that counts as unsafe, and from which probability.
        blocklist: file of subjects that must stay out.
        held_out_share: of the subjects, in the split `held_out`.
        encode: backbone whose latents are added to every sample; empty adds none.
        encode_side: of the pictures it sees, in pixels; 0 takes the backbone's own.
        encode_precision: of its weights on a GPU.
        samples_per_shard: pairs in a tar, at most.
        seed: of subjects, cameras, captions and splits.
        max_bad_fraction: of a source's records that may be broken.
        workers: tasks at a time; 0 takes every core.
    """

    sources: tuple[str, ...] = ("scenes",)
    source_settings: tuple[str, ...] = ()
    samples: int = 1024
    pairs_per_subject: int = 4
    size: int = 64
    margin: float = 0.1
    segmentation: SegmenterName = "auto"
    segmentation_weights: str = ""
    quality: Judged = "photos"
    quality_rules: tuple[str, ...] = ()
    identity: Judged = "photos"
    min_similarity: float = 0.35
    max_similarity: float = 0.97
    duplicate_bits: int = 4
    caption: CaptionChoice = "given"
    caption_model: str = ""
    safety_model: str = ""
    safety_label: str = "nsfw"
    safety_threshold: float = 0.5
    blocklist: str = ""
    held_out_share: float = 0.0
    encode: str = ""
    encode_side: int = 0
    encode_precision: Precision = "fp32"
    samples_per_shard: int = 128
    seed: int = 0
    max_bad_fraction: float = resource(0.25)
    workers: int = resource(0)

    def __post_init__(self) -> None:
        """Check ranges and what belongs together; the rest is checked where it is used."""
        require_choices(self)
        require_range(self, "samples", "pairs_per_subject", "samples_per_shard", least=1)
        require_range(self, "seed", "workers", "encode_side", least=0)
        require_range(self, "size", least=32, most=1024)
        require_range(self, "margin", least=0, most=0.45)
        require_range(self, "duplicate_bits", least=-1, most=MAX_DISTANCE)
        require_range(self, "held_out_share", "max_bad_fraction", least=0, most=1)
        if not self.sources:
            raise ConfigError("sources must name at least one, got none; write scenes")
        if (self.caption == "model") != bool(self.caption_model):
            raise ConfigError(
                "caption_model must be named with caption=model and with nothing else, "
                f"got {self.caption_model!r} with {self.caption}; set both or neither"
            )
