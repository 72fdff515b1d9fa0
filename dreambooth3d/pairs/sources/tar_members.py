"""Walk through a tar that may be damaged or hostile; nothing is ever unpacked to disk.

`tarfile` takes an archive that ends too early for a whole one, and reads any extended header into
memory. Here the headers are its own (`TarInfo.frombuf`), the walk is not.
"""

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from dreambooth3d.vision.refusal import RefusedError

_BLOCK = tarfile.BLOCKSIZE
_MOST_HEADER_BYTES = 1 << 20
_MOST_DIGITS = 8
_SKIP_BYTES = 1 << 20
_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_LONG_NAME, _LONG_LINK = tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK
_PAX, _GLOBAL_PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE), tarfile.XGLTYPE
_KINDS = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
}


class CutShortError(RefusedError):
    """An archive ends between two members, without the mark that all tars end with."""


@dataclass(frozen=True, kw_only=True)
class TarMember:
    """One member.

    Attributes:
        name: as written; anything.
        size: bytes.
        oddity: what it is instead of a file; empty for a file.
    """

    name: str
    size: int
    oddity: str


class TarWalk:
    """Iterate over the members of an open tar, folders aside; `read` gives the current one's bytes.

    Raises:
        CutShortError: after the last member, when the end mark is missing.
        RefusedError: a header is damaged, or a member's bytes end too early.
    """

    def __init__(self, file: BinaryIO, *, can_seek: bool) -> None:
        self._file = file
        self._can_seek = can_seek
        self._left = self._padding = 0
        self._length = self._measure() if can_seek else None

    def __iter__(self) -> Iterator[TarMember]:
        name, oddity = "", ""
        while (header := self._next_header()) is not None:
            if header.type in _PAX:
                found, is_sparse = _pax_name(self._read_header_data(header))
                name, oddity = found or name, "a sparse file" if is_sparse else oddity
            elif header.type == _LONG_NAME:
                name = self._read_header_data(header).rstrip(b"\0").decode(errors="surrogateescape")
            elif header.type in (_LONG_LINK, _GLOBAL_PAX):
                self._read_header_data(header)
            else:
                if header.type != tarfile.DIRTYPE:
                    oddity = oddity or _oddity(header)
                    yield TarMember(name=name or header.name, size=header.size, oddity=oddity)
                name, oddity = "", ""

    def read(self) -> bytes:
        """Read the current member."""
        data = self._file.read(self._left)
        self._left -= len(data)
        if self._left:
            raise _damaged(f"a member that ends {self._left} bytes too early")
        return data

    def _next_header(self) -> tarfile.TarInfo | None:
        """Return the next header, None at the end mark."""
        self._skip(self._left + self._padding)
        block = self._file.read(_BLOCK)
        if not block:
            raise CutShortError(
                "bad_member", "tar must end in an end mark, got none; copy it again"
            )
        if block.count(0) == _BLOCK:
            return None
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except (tarfile.HeaderError, ValueError, OverflowError) as error:
            raise _damaged(f"a damaged header ({error})") from error
        # Links and devices have no bytes, whatever their header says.
        is_bare = header.type in _KINDS and header.type != tarfile.GNUTYPE_SPARSE
        self._left = 0 if is_bare or header.type == tarfile.DIRTYPE else header.size
        if self._left < 0:
            raise _damaged(f"a size of {header.size}")
        self._padding = -self._left % _BLOCK
        return header

    def _read_header_data(self, header: tarfile.TarInfo) -> bytes:
        if header.size > _MOST_HEADER_BYTES:
            raise _damaged(f"an extended header of {header.size} bytes")
        return self.read()

    def _skip(self, count: int) -> None:
        if self._can_seek and self._length is not None:
            here = self._file.seek(count, os.SEEK_CUR)
            if here - self._padding > self._length:
                raise _damaged("a member that ends too early")
            return
        while count > 0:
            data = self._file.read(min(count, _SKIP_BYTES))
            if not data and count > self._padding:
                raise _damaged("a member that ends too early")
            if not data:
                return
            count -= len(data)

    def _measure(self) -> int:
        here = self._file.tell()
        length = self._file.seek(0, os.SEEK_END)
        self._file.seek(here)
        return length


def _oddity(header: tarfile.TarInfo) -> str:
    if header.type in _FILES:
        return ""
    return _KINDS.get(header.type, f"something of type {header.type!r}")


def _pax_name(data: bytes) -> tuple[str, bool]:
    """Return the path an extended header gives, if any, and whether the member is sparse.

    A record is ``length key=value`` and a newline; the length counts all of it.
    """
    name, is_sparse, start = "", False, 0
    while start < len(data) and data[start]:
        space = data.find(b" ", start, start + _MOST_DIGITS + 1)
        digits = data[start : max(space, start)]
        end = start + int(digits) if digits.isdigit() else start
        key, mark, value = data[space + 1 : end].partition(b"=")
        if not mark or not value.endswith(b"\n"):
            raise _damaged("an extended header that cannot be read")
        if key == b"path":
            name = value[:-1].decode(errors="surrogateescape")
        is_sparse = is_sparse or key.startswith(b"GNU.sparse.")
        start = end
    return name, is_sparse


def _damaged(found: str) -> RefusedError:
    return RefusedError("bad_member", f"tar must be undamaged, got {found}; copy it again")
