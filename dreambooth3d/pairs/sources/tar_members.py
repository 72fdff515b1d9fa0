"""Walk through a tar that may be damaged or hostile; nothing is ever unpacked to disk.

`tarfile` takes the first empty block for the end, an archive that ends too early for a whole one,
and reads any extended header into memory. Here the headers are its own (`TarInfo.frombuf`), the
walk is not: it ends where the file ends, and behind damage it goes on at the next sound header.
"""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO

from dreambooth3d.pairs.sources.tar_bytes import ForwardBytes
from dreambooth3d.vision.refusal import RefusedError

_BLOCK = tarfile.BLOCKSIZE
_END_BLOCKS = 2
_MAGIC = slice(257, 262)
# Old GNU sparse files have further blocks of their map behind the header, and a flag that says so.
_SPARSE_FLAG, _SPARSE_MAP_FLAG = 482, 504
_MOST_HEADER_BYTES = 1 << 20
_MOST_DIGITS = 8
_MOST_SIZE_DIGITS = 20
_SEARCH_BYTES = 1 << 16
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


@dataclass(frozen=True, kw_only=True, eq=False)
class TarDamage:
    """A stretch of a tar that cannot be read; what lay there, nobody can say."""

    problem: RefusedError


class TarWalk:
    """Iterate over an open tar: members, folders aside, and damage between them.

    The end is two empty blocks, and nothing but zeros to the end of the file; all else is damage,
    behind which the walk goes on at the next block that is a header with magic and checksum.
    `read` gives the bytes of the current member.
    """

    def __init__(self, file: BinaryIO, *, length: int, can_seek: bool, start: int = 0) -> None:
        """Begin at a block of the tar.

        Args:
            file: at its start.
            length: of the file, bytes.
            can_seek: whether to jump over what is not read.
            start: of the first header to read, bytes; a file that cannot seek begins at 0.
        """
        self._bytes = ForwardBytes(file, length=length, can_seek=can_seek, start=start)
        self._left = self._padding = 0
        self._is_lost = False

    def __iter__(self) -> Iterator[TarMember | TarDamage]:
        while not self._is_lost or self._find_header():
            self._is_lost = False
            try:
                member = self._next_member()
            except RefusedError as error:
                self._is_lost = True
                yield TarDamage(problem=error)
                continue
            if member is None:
                return
            yield member

    def read(self) -> bytes:
        """Read the current member.

        Raises:
            RefusedError: its bytes end too early.
        """
        data = self._bytes.read(self._left)
        self._left -= len(data)
        if self._left:
            raise self._damaged(f"a member that ends {self._left} bytes too early")
        return data

    def _next_member(self) -> TarMember | None:
        """Return the next member, with what extended headers say of it; None at the end."""
        extended: _Extended | None = None
        while (header := self._next_header()) is not None:
            if header.type in _PAX:
                extended = self._read_pax(header, extended or _Extended())
            elif header.type == _LONG_NAME:
                name = self._read_header_data(header).partition(b"\0")[0]
                extended = replace(
                    extended or _Extended(), name=name.decode(errors="surrogateescape")
                )
            elif header.type in (_LONG_LINK, _GLOBAL_PAX):
                self._read_header_data(header)
            elif header.type == tarfile.DIRTYPE:
                extended = None
            else:
                return self._member(header, extended or _Extended())
        if extended is not None:
            raise self._damaged("an extended header without its member")
        return None

    def _member(self, header: tarfile.TarInfo, extended: "_Extended") -> TarMember:
        size = header.size if extended.size is None else extended.size
        # Links and devices have no bytes, whatever their header says.
        is_bare = header.type in _KINDS and header.type != tarfile.GNUTYPE_SPARSE
        self._expect(0 if is_bare else size)
        oddity = "a sparse file" if extended.is_sparse else _oddity(header)
        if self._left > self._bytes.left:
            oddity = oddity or f"one that is cut off {self._left - self._bytes.left} bytes early"
            # Not trusted: it would lead past all that may lie behind.
            self._expect(0)
            self._is_lost = True
        return TarMember(name=extended.name or header.name, size=size, oddity=oddity)

    def _next_header(self) -> tarfile.TarInfo | None:
        """Return the next header, None at the end."""
        self._bytes.skip(self._left + self._padding)
        self._expect(0)
        block = self._bytes.peek(_BLOCK)
        if block.count(0) == len(block):
            self._pass_end()
            return None
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except (tarfile.HeaderError, ValueError, OverflowError) as error:
            raise self._damaged(f"a damaged header ({error})") from error
        finally:
            self._bytes.skip(len(block))
        if header.size < 0:
            raise self._damaged(f"a size of {header.size}")
        if header.type == tarfile.GNUTYPE_SPARSE:
            self._pass_sparse_map(has_more=bool(block[_SPARSE_FLAG]))
        return header

    def _expect(self, size: int) -> None:
        """Know how many bytes come before the next header."""
        self._left, self._padding = size, -size % _BLOCK

    def _pass_end(self) -> None:
        """Pass over empty blocks to the end of the file."""
        start = self._bytes.position
        while window := self._bytes.peek(_SEARCH_BYTES):
            is_empty = window.count(0) == len(window)
            rest = 0 if is_empty else len(window.lstrip(b"\0"))
            self._bytes.skip((len(window) - rest) // _BLOCK * _BLOCK if rest else len(window))
            if rest:
                break
        count = (self._bytes.position - start) // _BLOCK
        if count < _END_BLOCKS:
            found = (
                "zeros where a header should be" if window else "no end mark of two empty blocks"
            )
            raise self._damaged(found, start)
        if window:
            raise self._damaged("something behind the end mark")

    def _find_header(self) -> bool:
        """Go on to the next block that is surely a header; False when there is none."""
        self._expect(0)
        self._bytes.skip(-self._bytes.position % _BLOCK)
        while window := self._bytes.peek(_SEARCH_BYTES):
            for start in range(0, len(window), _BLOCK):
                if _is_header(window[start : start + _BLOCK]):
                    self._bytes.skip(start)
                    return True
            self._bytes.skip(len(window))
        return False

    def _pass_sparse_map(self, *, has_more: bool) -> None:
        while has_more:
            block = self._bytes.read(_BLOCK)
            has_more = len(block) == _BLOCK and bool(block[_SPARSE_MAP_FLAG])

    def _read_header_data(self, header: tarfile.TarInfo) -> bytes:
        if header.size > min(_MOST_HEADER_BYTES, self._bytes.left):
            raise self._damaged(f"an extended header of {header.size} bytes")
        self._expect(header.size)
        return self.read()

    def _read_pax(self, header: tarfile.TarInfo, extended: "_Extended") -> "_Extended":
        start, data = self._bytes.position, self._read_header_data(header)
        try:
            return _parse_pax(data, extended)
        except ValueError as error:
            raise self._damaged("an extended header that cannot be read", start) from error

    def _damaged(self, found: str, place: int | None = None) -> RefusedError:
        where = self._bytes.position if place is None else place
        return RefusedError(
            "bad_member", f"tar must be undamaged, got {found} at byte {where}; copy it again"
        )


@dataclass(frozen=True, kw_only=True)
class _Extended:
    """What extended headers say of the member behind them: the header itself has little room."""

    name: str = ""
    size: int | None = None
    is_sparse: bool = False


def _oddity(header: tarfile.TarInfo) -> str:
    if header.type in _FILES:
        return ""
    return _KINDS.get(header.type, f"something of type {header.type!r}")


def _is_header(block: bytes) -> bool:
    if block[_MAGIC] != b"ustar":
        return False
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError, OverflowError):
        return False
    return True


def _parse_pax(data: bytes, extended: _Extended) -> _Extended:
    """Add what an extended header says of name, size and kind.

    A record is ``length key=value`` and a newline; the length counts all of it.
    """
    start = 0
    while start < len(data) and data[start]:
        space = data.find(b" ", start, start + _MOST_DIGITS + 1)
        digits = data[start : max(space, start)]
        end = start + int(digits) if digits.isdigit() else start
        key, mark, value = data[space + 1 : end].partition(b"=")
        if end > len(data) or not mark or not value.endswith(b"\n"):
            raise ValueError("a record that is none")
        extended = _with_record(extended, key, value[:-1])
        start = end
    return extended


def _with_record(extended: _Extended, key: bytes, value: bytes) -> _Extended:
    if key == b"path" and not (extended.is_sparse and extended.name):
        return replace(extended, name=value.decode(errors="surrogateescape"))
    if key == b"size":
        if not value.isdigit() or len(value) > _MOST_SIZE_DIGITS:
            raise ValueError("a size that is none")
        return replace(extended, size=int(value))
    if key == b"GNU.sparse.name":
        return replace(extended, name=value.decode(errors="surrogateescape"), is_sparse=True)
    return replace(extended, is_sparse=extended.is_sparse or key.startswith(b"GNU.sparse."))
