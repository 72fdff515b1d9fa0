"""What a source hands over: raw pairs in chunks that any worker can read again.

A `Chunk` is the unit of work and of restart: a few seconds of work, of which neighbours become one
shard. What it holds depends on the source and its settings alone, so that any worker, in any run,
makes the same of it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dreambooth3d.artifacts.jsonfile import JsonValue
from dreambooth3d.artifacts.shard import Members
from dreambooth3d.vision.refusal import Reason

# Encoded bytes as they were found, or pixels that were rendered (RGB, or RGBA with true alpha).
Picture: TypeAlias = bytes | Image.Image


@dataclass(frozen=True, kw_only=True)
class RawPair:
    """One pair before any operator has seen it.

    Attributes:
        key: name within the source: letters, digits, `_` and `-`, at most 48; never a file's name.
        reference: shows the object; alpha where it is known.
        target: shows the same object in a scene.
        subject: whose pictures these are, unique within the source; splits go by it.
        origin: where a person finds it: relative file name, row; any text.
        caption: of the target; empty when the source has none.
        class_noun: what the object is; empty when unknown.
        reference_mask: (H, W) of the object in `reference`, where the source knows it.
        target_mask: (H, W) of the object in `target`, where the source knows it.
        meta: what the source knows beyond that (camera, collection); goes into the sample's json.
        licence: SPDX name of the pictures, or empty.
        attribution: who must be named, or empty.
        aliases: other names of the subject; a blocklist may have any of them.
    """

    key: str
    reference: Picture
    target: Picture
    subject: str
    origin: str
    caption: str = ""
    class_noun: str = ""
    reference_mask: NDArray[np.bool_] | None = None
    target_mask: NDArray[np.bool_] | None = None
    meta: dict[str, JsonValue] = field(default_factory=dict)
    licence: str = ""
    attribution: str = ""
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Rejected:
    """A record that is left out.

    Attributes:
        key: as in `RawPair`, or what is known of it.
        origin: where a person finds it.
        reason: what it is counted as.
        sentence: what must hold, what was found.
        picture: what people would look at; None when nothing could be decoded.
        subject: whose picture it would have been, where that is known.
        blocked_by: entry of the blocklist that names it, or empty.
    """

    key: str
    origin: str
    reason: Reason
    sentence: str
    picture: Image.Image | None = None
    subject: str = ""
    blocked_by: str = ""


Record: TypeAlias = RawPair | Rejected


@dataclass(frozen=True, kw_only=True)
class SampleNote:
    """What later steps must know of a sample without opening it.

    Attributes:
        key: of the sample.
        subject: whose picture it is; splits go by it.
        target_hash, reference_hash: perceptual hashes, 64 bits.
        licence: SPDX name of the pictures, or empty.
        attribution: who must be named, or empty.
        split: of the corpus it comes from, or empty.
    """

    key: str
    subject: str
    target_hash: int
    reference_hash: int
    licence: str = ""
    attribution: str = ""
    split: str = ""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A pair that has passed every operator, encoded."""

    note: SampleNote
    members: Members


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A part of a source that one task works on.

    Attributes:
        index: place among the source's chunks, from 0.
        payload: what `Source.read` needs to find it (file names, row ranges): plain JSON.
        num_records: records expected, for progress.
    """

    index: int
    payload: dict[str, JsonValue]
    num_records: int


class Source(Protocol):
    """A plug; small, picklable, without open files: workers get copies of it.

    Attributes:
        name: of the kind and of its shards, such as `captures`.
        needs_segmentation: whether references come with their background.
    """

    name: str
    needs_segmentation: bool

    def fingerprint(self) -> str:
        """A hash that changes when what the source would give changes."""

    def chunks(self) -> Sequence[Chunk]:
        """Divide all records, in a fixed order, without reading pictures.

        Raises:
            InputError: the source as a whole cannot be used (no files, a missing column).
        """

    def remarks(self) -> Sequence[str]:
        """Say what people should know before the work starts, without reading pictures."""

    def read(self, chunk: Chunk) -> Iterator[Record]:
        """Yield the records of a chunk, in order; a bad one comes as `Rejected`."""
