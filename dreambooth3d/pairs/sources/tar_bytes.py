"""The bytes of a file, forwards: read, passed over, or looked at before they are passed."""

import os
from typing import BinaryIO

_SKIP_BYTES = 1 << 20


class ForwardBytes:
    """Read a file once, forwards; what was looked at is read again from memory.

    Attributes:
        length: of the file, bytes.
        position: bytes from its start.
    """

    def __init__(self, file: BinaryIO, *, length: int, can_seek: bool, start: int = 0) -> None:
        self._file = file
        self._can_seek = can_seek
        self._ahead, self._used = b"", 0
        self.length = length
        self.position = start
        if start:
            file.seek(start)

    @property
    def left(self) -> int:
        """Bytes to the end."""
        return max(0, self.length - self.position)

    def read(self, count: int) -> bytes:
        """Read `count` bytes; fewer at the end."""
        count = min(count, self.left)
        data = self._ahead[self._used : self._used + count]
        self._used += len(data)
        if len(data) < count:
            data += self._read_file(count - len(data))
        self.position += len(data)
        return data

    def peek(self, count: int) -> bytes:
        """Look at the next `count` bytes; fewer at the end."""
        count = min(count, self.left)
        held = len(self._ahead) - self._used
        if held < count:
            self._ahead = self._ahead[self._used :] + self._read_file(count - held)
            self._used = 0
        return self._ahead[self._used : self._used + count]

    def skip(self, count: int) -> None:
        """Pass over `count` bytes, or all that are left."""
        count = min(count, self.left)
        self.position += count
        held = min(count, len(self._ahead) - self._used)
        self._used += held
        if count == held:
            return
        if self._can_seek:
            self._file.seek(count - held, os.SEEK_CUR)
            return
        rest = count - held
        while rest > 0 and (data := self._file.read(min(rest, _SKIP_BYTES))):
            rest -= len(data)

    def _read_file(self, count: int) -> bytes:
        """Read on behind what is in memory; a stream may give less than it is asked for."""
        pieces: list[bytes] = []
        while count > 0 and (data := self._file.read(count)):
            pieces.append(data)
            count -= len(data)
        return b"".join(pieces)
