"""Source `webdataset`: tars of samples that hold a picture pair, ours or others', read again.

Any further members (masks, latents) are left behind: they belong to pictures as they were.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

from dreambooth3d.artifacts.jsonfile import JsonValue, dump_json
from dreambooth3d.artifacts.key import artifact_key
from dreambooth3d.artifacts.place import Place, PlacedFile
from dreambooth3d.artifacts.settings import require_range
from dreambooth3d.artifacts.shard import index_name
from dreambooth3d.errors import ArtifactError, ConfigError, InputError
from dreambooth3d.pairs.records import Chunk, RawPair, Record, Rejected
from dreambooth3d.pairs.sources.chunking import pack_name, unpack_name, whole
from dreambooth3d.pairs.sources.listing import list_files, place_files
from dreambooth3d.pairs.sources.origin import printable, subject_name
from dreambooth3d.pairs.sources.recorded_splits import read_splits, unlisted_tars
from dreambooth3d.pairs.sources.sample_tar import SampleTar
from dreambooth3d.pairs.sources.tar_samples import TarSample
from dreambooth3d.pairs.sources.wording import text_of, words_of
from dreambooth3d.pairs.splits import HELD_OUT
from dreambooth3d.vision.refusal import RefusedError

_REVISION = 2
_SPLIT = "split"
# What `captures` and `meshes` write beside the subject.
_ALIASES = ("subject_id", "subject_name")
# Only for the progress bar, where a tar is far away and has no index.
_USUAL_SAMPLE_BYTES = 100_000


@dataclass(frozen=True, kw_only=True)
class WebDatasetSource:
    """Samples of tars, in the order of the tars' names.

    Attributes:
        place: a folder of ``.tar`` files, or one.
        reference, target: extensions of the two pictures; several are tried when divided by ``;``.
        caption, meta: extensions of the text and of the JSON record; a sample may lack them.
        has_background: whether references still have to be cut out.
        records_per_chunk: pairs in a shard, at most; on this machine large tars are divided.
    """

    place: Place
    reference: str = "reference.png"
    target: str = "target.jpg"
    caption: str = "txt"
    meta: str = "json"
    has_background: bool = False
    records_per_chunk: int = 128

    name = "webdataset"
    needs_segmentation = False

    def __post_init__(self) -> None:
        require_range(self, "records_per_chunk", least=1)
        for name in ("reference", "target", "caption", "meta"):
            if not all(_extensions(getattr(self, name))):
                raise ConfigError(
                    f"{name} must be an extension such as jpg, got {getattr(self, name)!r}; name it"
                )
        # Not a field: it follows from one.
        object.__setattr__(self, "needs_segmentation", self.has_background)

    def fingerprint(self) -> str:
        """A hash of the settings, the tars, the indexes beside them and the splits they are of."""
        folder, files = self._files()
        names = [file.name for file in files]
        settings: dict[str, object] = {
            **{f.name: getattr(self, f.name) for f in fields(self) if f.name != "place"},
            "splits": read_splits(folder, names),
        }
        contents = folder.fingerprint((*files, *_index_files(folder, names)))
        return artifact_key(self.name, _REVISION, settings, (contents,))

    def chunks(self) -> Sequence[Chunk]:
        """Ranges of samples within tars; a tar far away without an index is one range.

        The number of records is exact, damage included, but for such a tar: there it is expected.

        Raises:
            InputError: there are no tars, none has a sample, or one cannot be read.
            ArtifactError: a manifest beside the tars is damaged.
        """
        folder, files = self._files()
        splits = read_splits(folder, (file.name for file in files))
        chunks: list[Chunk] = []
        for number, file in enumerate(files):
            for first, count, num_records in self._ranges(folder, file):
                payload: dict[str, JsonValue] = {
                    "file": pack_name(file.name),
                    "length": file.size,
                    "number": number,
                    "first": first,
                    "count": count,
                    "split": splits.get(file.name),
                }
                chunks.append(Chunk(index=len(chunks), payload=payload, num_records=num_records))
        if not chunks:
            raise InputError(
                f"{self.name} must hold samples, got empty tars at {self.place}; check the address"
            )
        return chunks

    def remarks(self) -> Sequence[str]:
        """Tell of tars whose split nobody knows, and of samples that name no subject."""
        folder, files = self._files()
        names = [file.name for file in files]
        return (*_remarks_on_splits(unlisted_tars(folder, names)), *self._remarks_on_subjects())

    def read(self, chunk: Chunk) -> Iterator[Record]:
        """Read a range of samples, and damage that belongs to none of them."""
        name, number = unpack_name(chunk.payload["file"]), whole(chunk.payload["number"])
        first, count = whole(chunk.payload["first"]), chunk.payload["count"]
        end = None if count is None else first + whole(count)
        folder = self.place.parent if self.place.is_file() else self.place
        tar = self._tar(folder / name, whole(chunk.payload["length"]))
        for sample in _between(tar, first, end):
            key = f"{number:05d}-{sample.ordinal:07d}"
            where = f"{printable(name)}, {printable(sample.key) or 'no sample'}"
            try:
                yield self._pair(sample, key, where, chunk.payload["split"])
            except RefusedError as error:
                yield Rejected(key=key, origin=where, reason=error.reason, sentence=str(error))

    def _files(self) -> tuple[Place, tuple[PlacedFile, ...]]:
        return list_files(self.place, ".tar", what=self.name)

    def _tar(self, place: Place, length: int) -> SampleTar:
        settings = (self.reference, self.target, self.caption, self.meta)
        parts = tuple(frozenset(_extensions(setting)) for setting in settings)
        return SampleTar(place=place, length=length, parts=parts)

    def _ranges(self, folder: Place, file: PlacedFile) -> Iterator[tuple[int, int | None, int]]:
        """Yield first sample, number of samples (None: all that come), and records expected."""
        total = self._tar(folder / file.name, file.size).count()
        if total is None:
            yield 0, None, max(1, file.size // _USUAL_SAMPLE_BYTES)
            return
        for first in range(0, total, self.records_per_chunk):
            count = min(self.records_per_chunk, total - first)
            yield first, count, count

    def _remarks_on_subjects(self) -> Iterator[str]:
        """Look at the first sample: those of a set are alike."""
        folder, (first, *_) = self._files()
        tar = self._tar(folder / first.name, first.size)
        sample = next(tar.samples(needs=lambda ordinal: ordinal == 0), None)
        if sample is None or sample.problem is not None:
            return
        try:
            meta = _read_meta(_member(sample, self.meta))
        except RefusedError:
            # It is counted, and says so, when it is read.
            return
        if not subject_name(text_of(meta.get("subject"))):
            yield (
                f"samples without a subject, such as {printable(sample.key)} in "
                f"{printable(first.name)}: each counts as a subject of its own, so a split goes "
                f"by picture; write subject in their {self.meta}"
            )

    def _pair(self, sample: TarSample, key: str, where: str, split: JsonValue) -> RawPair:
        if sample.problem is not None:
            raise sample.problem
        meta = _read_meta(_member(sample, self.meta))
        if split is not None and meta.get(_SPLIT) != HELD_OUT:
            # A sample says it itself, but for corpora of before; held out once is for good.
            meta[_SPLIT] = split
        return RawPair(
            key=key,
            reference=_require(sample, self.reference),
            target=_require(sample, self.target),
            subject=subject_name(text_of(meta.get("subject"))) or where,
            # The photo it was made of, where that is known.
            origin=words_of(meta.get("origin")) or where,
            caption=_read_caption(_member(sample, self.caption)),
            class_noun=words_of(meta.get("class_noun")),
            meta=meta | {"origin_shard": where},
            licence=words_of(meta.get("licence")) or words_of(meta.get("license")),
            attribution=words_of(meta.get("attribution")),
            aliases=tuple(filter(None, (words_of(meta.get(name)) for name in _ALIASES))),
        )


def _remarks_on_splits(unlisted: Sequence[str]) -> Iterator[str]:
    if unlisted:
        yield (
            f"tars that the manifest beside them does not name {len(unlisted)}, such as "
            f"{printable(unlisted[0])}: only what their samples say themselves keeps them held "
            "out; give them the names they had"
        )


def _index_files(folder: Place, tars: Sequence[str]) -> tuple[PlacedFile, ...]:
    """List the indexes beside tars: what is in them decides what becomes of a sample."""
    names = [index_name(tar) for tar in tars]
    if folder.local_path is not None:
        names = [name for name in names if (folder / name).exists()]
    return place_files(folder, names)


def _between(tar: SampleTar, first: int, end: int | None) -> Iterator[TarSample]:
    for sample in tar.samples(needs=lambda i: first <= i and (end is None or i < end)):
        if end is not None and sample.ordinal >= end:
            return
        if sample.ordinal >= first:
            yield sample


def _extensions(setting: str) -> tuple[str, ...]:
    return tuple(part.strip().lower() for part in setting.split(";"))


def _member(sample: TarSample, setting: str) -> bytes | None:
    found = (sample.members.get(extension) for extension in _extensions(setting))
    return next((data for data in found if data is not None), None)


def _require(sample: TarSample, setting: str) -> bytes:
    data = _member(sample, setting)
    if data is None:
        found = ", ".join(map(printable, sample.extensions)) or "none"
        raise RefusedError(
            "missing_member",
            f"sample must have the member {setting}, got {found[:200]}; name what yours have "
            "with --set source_settings=webdataset.reference=..., or .target or .caption",
        )
    return data


def _read_caption(data: bytes | None) -> str:
    try:
        return (data or b"").decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise RefusedError("bad_caption", f"caption must be UTF-8, got {error}") from error


def _read_meta(data: bytes | None) -> dict[str, JsonValue]:
    """Decode the JSON record; it must survive being written again."""
    if data is None:
        return {}
    try:
        found = json.loads(data)
        if not isinstance(found, dict):
            raise RefusedError(
                "bad_row", f"JSON of a sample must be a record, got {type(found).__name__}"
            )
        dump_json(found, what="the sample").encode()
    except RefusedError:
        raise
    except (ValueError, RecursionError, ArtifactError) as error:
        raise RefusedError("bad_row", f"JSON of a sample must be sound, got {error}") from error
    return found
