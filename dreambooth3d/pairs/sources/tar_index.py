"""The byte index beside a tar: which samples must be there, where, and with what checksum."""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from dreambooth3d.artifacts.place import Place
from dreambooth3d.artifacts.shard import (
    ByteRanges,
    index_name,
    parse_checksums,
    parse_index,
    sample_span,
    span_checksum,
)
from dreambooth3d.errors import ArtifactError
from dreambooth3d.pairs.sources.listing import read_or_refuse
from dreambooth3d.pairs.sources.origin import printable
from dreambooth3d.pairs.sources.tar_samples import MOST_MEMBER_BYTES, Needs, TarSample
from dreambooth3d.vision.refusal import RefusedError

_MOST_INDEX_BYTES = 1 << 28
_MOST_SPAN_BYTES = 2 * MOST_MEMBER_BYTES


@dataclass(frozen=True, kw_only=True)
class IndexedSample:
    """What an index says of one sample.

    Attributes:
        key: as written.
        ranges: extension -> offset and size in the tar, bytes.
        start, end: of all its bytes, headers and padding included.
        checksum: of them, hex.
    """

    key: str
    ranges: ByteRanges
    start: int
    end: int
    checksum: str


@dataclass(frozen=True, kw_only=True)
class TarIndex:
    """The samples of a tar, one behind the other from its first byte."""

    samples: tuple[IndexedSample, ...]

    @property
    def end(self) -> int:
        """Where the last sample ends, bytes."""
        return self.samples[-1].end if self.samples else 0

    def read(
        self, file: BinaryIO, wanted: frozenset[str], *, length: int, needs: Needs
    ) -> Iterator[TarSample]:
        """Yield every sample by its byte range; one that is not needed comes without bytes.

        A sample whose bytes are not those that were packed is refused: it is known by name, and
        nothing is lost with it.

        Args:
            file: the tar; it can seek.
            wanted: extensions to read.
            length: of the tar, bytes.
            needs: whether the sample with this ordinal will be used.
        """
        for ordinal, item in enumerate(self.samples):
            sample = TarSample(ordinal=ordinal, key=item.key, extensions=list(item.ranges))
            if needs(ordinal):
                _fill(sample, item, file, wanted, length)
            yield sample


def read_tar_index(tar: Place) -> TarIndex | None:
    """Read the index beside a tar; None when there is none.

    Raises:
        RefusedError: it cannot be used.
        InputError: the store is at fault.
    """
    place = tar.parent / index_name(tar.name)
    if not place.exists():
        return None
    data = read_or_refuse(place, reason="bad_member", most_bytes=_MOST_INDEX_BYTES)
    name = printable(tar.name)
    try:
        found = parse_index(data, name=name)
        sums = parse_checksums(data, found, name=name)
    except ArtifactError as error:
        raise RefusedError("bad_member", str(error)) from error
    samples = tuple(
        IndexedSample(key=key, ranges=ranges, start=start, end=end, checksum=checksum)
        for (key, ranges), checksum in zip(found, sums, strict=True)
        for start, end in [sample_span(ranges)]
    )
    _require_all(samples, name)
    return TarIndex(samples=samples)


def _require_all(samples: tuple[IndexedSample, ...], name: str) -> None:
    """Refuse an index that leaves out part of its tar: what lies there would be lost."""
    end = 0
    for sample in samples:
        if not sample.ranges or sample.start != end:
            raise _unusable(name, f"a gap before {printable(sample.key)}")
        end = sample.end
    if len({sample.key for sample in samples}) < len(samples):
        raise _unusable(name, "a key that comes again")


def _unusable(name: str, found: str) -> RefusedError:
    return RefusedError(
        "bad_member",
        f"byte index of {name} must list all samples from the first byte on, got {found}; "
        "copy it again, or delete it to take the tar as it is",
    )


def _fill(
    sample: TarSample, item: IndexedSample, file: BinaryIO, wanted: frozenset[str], length: int
) -> None:
    if item.end > length:
        sample.refuse(
            f"tar must have the {item.end} bytes that its index says sample {printable(item.key)} "
            f"ends at, got {length}; copy it again"
        )
        return
    if item.end - item.start > _MOST_SPAN_BYTES:
        sample.refuse(
            f"sample must have at most {_MOST_SPAN_BYTES} bytes, got {item.end - item.start}"
        )
        return
    file.seek(item.start)
    span = file.read(item.end - item.start)
    if span_checksum(span) != item.checksum:
        sample.refuse(
            f"sample {printable(item.key)} must have the bytes that the index of its tar was "
            "written for, got others; copy both again, or delete the index to take the tar as it is"
        )
        return
    if _members(span) != _expected(item):
        sample.refuse(
            f"byte index must list the members of sample {printable(item.key)} as they lie in its "
            "tar, got others; copy it again, or delete it to take the tar as it is"
        )
        return
    for extension, (offset, size) in item.ranges.items():
        if extension in wanted:
            first = offset - item.start
            sample.members[extension] = span[first : first + size]


def _members(span: bytes) -> dict[str, tuple[int, int]]:
    """Where the members of a sample lie by their own headers; none when one is no header."""
    found: dict[str, tuple[int, int]] = {}
    place = 0
    while place < len(span):
        try:
            header = tarfile.TarInfo.frombuf(
                span[place : place + tarfile.BLOCKSIZE], "utf-8", "surrogateescape"
            )
        except tarfile.HeaderError:
            return {}
        place += tarfile.BLOCKSIZE
        found[header.name] = (place, header.size)
        place += -(-header.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
    return found


def _expected(item: IndexedSample) -> dict[str, tuple[int, int]]:
    return {
        f"{item.key}.{extension}": (offset - item.start, size)
        for extension, (offset, size) in item.ranges.items()
    }
