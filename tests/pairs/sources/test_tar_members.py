import io
import tarfile
from contextlib import nullcontext, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreambooth3d.pairs.sources.tar_members import CutShortError, TarMember, TarWalk
from dreambooth3d.vision.refusal import RefusedError

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
LONG = "folder/" * 30 + "ü ☃ " * 20 + ".txt"


class OneWay(io.BytesIO):
    """Like the stream of an object store: it cannot go back."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        raise io.UnsupportedOperation("seek")


def tar_of(
    members: list[tuple[str, bytes]], form: int = tarfile.USTAR_FORMAT, *, has_end: bool = True
) -> bytes:
    buffer = io.BytesIO()
    tar = tarfile.open(fileobj=buffer, mode="w", format=form)  # noqa: SIM115
    for name, data in members:
        header = tarfile.TarInfo(name)
        header.size = len(data)
        tar.addfile(header, io.BytesIO(data))
    end = tar.offset
    tar.close()
    return buffer.getvalue() if has_end else buffer.getvalue()[:end]


def read(data: bytes, *, can_seek: bool = True) -> list[tuple[str, bytes]]:
    walk = TarWalk(io.BytesIO(data) if can_seek else OneWay(data), can_seek=can_seek)
    return [(member.name, walk.read()) for member in walk]


@pytest.mark.parametrize("can_seek", [True, False])
@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
def test_every_format_is_read(form: int, can_seek: bool) -> None:
    members = [("a.txt", b"1"), ("empty", b""), ("b/c.d.e", bytes(1500)), ("end", b"z" * 512)]
    if form != tarfile.USTAR_FORMAT:
        members += [(LONG, b"long"), ("short", b"after")]
    assert read(tar_of(members, form), can_seek=can_seek) == members


@pytest.mark.parametrize("can_seek", [True, False])
def test_what_is_not_read_is_passed_over(can_seek: bool) -> None:
    data = tar_of([("a", b"x" * 5000), ("b", b"y" * 3)])
    walk = TarWalk(io.BytesIO(data) if can_seek else OneWay(data), can_seek=can_seek)
    assert list(walk) == [
        TarMember(name="a", size=5000, oddity=""),
        TarMember(name="b", size=3, oddity=""),
    ]


def test_folders_are_passed_over_and_odd_members_are_named() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, kind in (
            ("folder", tarfile.DIRTYPE),
            ("soft", tarfile.SYMTYPE),
            ("hard", tarfile.LNKTYPE),
            ("disk", tarfile.BLKTYPE),
            ("pipe", tarfile.FIFOTYPE),
            ("new", b"Z"),
        ):
            header = tarfile.TarInfo(name)
            header.type, header.linkname = kind, "/etc/passwd"
            tar.addfile(header)
    found = {m.name: m.oddity for m in TarWalk(io.BytesIO(buffer.getvalue()), can_seek=True)}
    assert found == {
        "soft": "a link",
        "hard": "a hard link",
        "disk": "a device",
        "pipe": "a pipe",
        "new": "something of type b'Z'",
    }


def test_a_missing_end_mark_is_told_after_the_last_member() -> None:
    data = tar_of([("a", b"1"), ("b", b"2")], has_end=False)
    found = []
    with pytest.raises(CutShortError, match="end mark"):
        found += [member.name for member in TarWalk(io.BytesIO(data), can_seek=True)]
    walk = iter(TarWalk(io.BytesIO(data), can_seek=True))
    assert [next(walk).name, next(walk).name] == ["a", "b"]
    for whole in (b"", data[:512], data[:1000]):
        with pytest.raises(RefusedError, match="must"):
            read(whole)


@pytest.mark.parametrize("can_seek", [True, False])
@given(cut=st.integers(min_value=0, max_value=4095), is_reading=st.booleans())
def test_any_cut_is_found(can_seek: bool, cut: int, is_reading: bool) -> None:
    data = tar_of([("a", b"x" * 700), ("b", b"y" * 900)], has_end=False) + bytes(1024)
    assert len(data) == 4096
    stream = io.BytesIO(data[:cut]) if can_seek else OneWay(data[:cut])
    walk = TarWalk(stream, can_seek=can_seek)
    # One block of zeros is mark enough.
    is_whole = cut >= 3584
    with nullcontext() if is_whole else pytest.raises(RefusedError, match="must"):
        for member in walk:
            if is_reading:
                assert walk.read() == (data[512:1212] if member.name == "a" else data[2048:2948])


@given(place=st.integers(min_value=0, max_value=8191), byte=st.integers(min_value=0, max_value=255))
def test_no_flipped_byte_does_more_than_refuse(place: int, byte: int) -> None:
    data = bytearray(tar_of([("a", b"x" * 700), (LONG, b"y")], tarfile.PAX_FORMAT))
    data[place % len(data)] = byte
    with suppress(RefusedError):
        assert len(read(bytes(data))) <= 3


def test_extended_headers_are_no_bomb() -> None:
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 1 << 40
    with pytest.raises(RefusedError, match="extended header of 1099511627776 bytes"):
        read(header.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
    header.type, header.size = tarfile.XHDTYPE, 400_000
    many = (b"10 a=bcde\n" * 40_000)[:400_000]
    with pytest.raises(RefusedError):
        read(header.tobuf(tarfile.GNU_FORMAT) + many + bytes(-len(many) % 512))
