import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreambooth3d.pairs.sources.tar_members import TarDamage, TarMember, TarWalk

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


def walk_of(data: bytes, *, can_seek: bool = True) -> TarWalk:
    file = io.BytesIO(data) if can_seek else OneWay(data)
    return TarWalk(file, length=len(data), can_seek=can_seek)


def read(data: bytes, *, can_seek: bool = True) -> list[tuple[str, bytes]]:
    """The members of a tar without damage."""
    walk = walk_of(data, can_seek=can_seek)
    found = []
    for member in walk:
        assert isinstance(member, TarMember)
        found.append((member.name, walk.read()))
    return found


def told(data: bytes, *, can_seek: bool = True, is_reading: bool = False) -> list[str]:
    """Names of members, what is odd about them, and sentences of damage."""
    walk = walk_of(data, can_seek=can_seek)
    found = []
    for item in walk:
        if isinstance(item, TarDamage):
            found.append(str(item.problem))
            continue
        found.append(item.name + (f": {item.oddity}" if item.oddity else ""))
        if is_reading:
            walk.read()
    return found


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
    assert list(walk_of(data, can_seek=can_seek)) == [
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
    assert told(buffer.getvalue()) == [
        "soft: a link",
        "hard: a hard link",
        "disk: a device",
        "pipe: a pipe",
        "new: something of type b'Z'",
    ]


@pytest.mark.parametrize("can_seek", [True, False])
@pytest.mark.parametrize(
    ("end", "said"),
    [
        (b"", "no end mark of two empty blocks at byte 2048"),
        (bytes(512), "no end mark of two empty blocks at byte 2048"),
        (bytes(1023), "no end mark of two empty blocks at byte 2048"),
        (bytes(1024), ""),
        (bytes(10_240), ""),
        (bytes(1 << 20), ""),
        (bytes(3000) + b"x" + bytes(3000), "something behind the end mark at byte 4608"),
        (bytes(1 << 20) + b"x", "something behind the end mark at byte 1050624"),
        (bytes(512) + b"x" * 512, "zeros where a header should be at byte 2048"),
        (b"x" * 100, "a damaged header (truncated header) at byte 2048"),
    ],
)
def test_the_end_is_two_empty_blocks_and_zeros(end: bytes, said: str, can_seek: bool) -> None:
    data = tar_of([("a", b"1"), ("b", b"2")], has_end=False) + end
    expected = [f"tar must be undamaged, got {said}; copy it again"] if said else []
    assert told(data, can_seek=can_seek) == ["a", "b", *expected]


@pytest.mark.parametrize("can_seek", [True, False])
@pytest.mark.parametrize("is_reading", [True, False])
@pytest.mark.parametrize("wiped", [512, 1024, 5 * 512])
def test_the_walk_goes_on_behind_a_wiped_header(
    wiped: int, can_seek: bool, is_reading: bool
) -> None:
    members = [(name, name.encode() * 700) for name in "abcdefgh"]
    whole = tar_of(members)
    start = 3 * 1536
    for fill in (b"\0", b"\xff", b"ustar"):
        data = whole[:start] + (fill * wiped)[:wiped] + whole[start + wiped :]
        before, damage, *after = told(data, can_seek=can_seek, is_reading=is_reading)[2:]
        assert before == "c"
        assert "at byte" in damage
        assert after == list("efgh" if wiped <= 1536 else "fgh")


def test_tars_that_were_joined_are_read_to_the_last_member() -> None:
    data = b"".join(tar_of([(name, b"1")]) for name in "abc")
    names = told(data)
    assert [name for name in names if len(name) == 1] == ["a", "b", "c"]
    assert sum("behind the end mark" in name for name in names) == 2


@pytest.mark.parametrize("can_seek", [True, False])
@pytest.mark.parametrize("size", [4096, 1 << 33, 1 << 50])
def test_a_size_beyond_the_end_is_not_believed(size: int, can_seek: bool) -> None:
    header = tarfile.TarInfo("huge")
    header.size = size
    data = tar_of([("a", b"1")], has_end=False) + header.tobuf(tarfile.GNU_FORMAT)
    data += tar_of([("b", b"2")])[:2048]
    cut, *rest = told(data, can_seek=can_seek)[1:]
    assert cut == f"huge: one that is cut off {size - 2048} bytes early"
    assert rest == ["b"]


def test_sizes_and_kinds_in_extended_headers_count() -> None:
    def extended(records: bytes) -> bytes:
        header = tarfile.TarInfo("x")
        header.type, header.size = tarfile.XHDTYPE, len(records)
        return header.tobuf(tarfile.USTAR_FORMAT) + records + bytes(-len(records) % 512)

    # The member's own header has no size.
    data = extended(b"12 size=600\n") + tar_of([("a", b"")], has_end=False) + b"x" * 1024
    assert read(data[:-424] + bytes(424) + tar_of([("b", b"2")])) == [
        ("a", b"x" * 600),
        ("b", b"2"),
    ]
    sparse = extended(b"22 GNU.sparse.major=1\n26 GNU.sparse.name=k1.txt\n13 path=zzzz\n")
    assert told(sparse + tar_of([("zzzz", b"1")])) == ["k1.txt: a sparse file"]
    for bad in (b"9 size=x\n", b"40 size=" + b"9" * 31 + b"\n", b"0 a=b\n", b"99999999 a=b\n"):
        damage, *rest = told(extended(bad) + tar_of([("a", b"1")]))
        assert "an extended header that cannot be read at byte 512" in damage
        assert rest == ["a"]
    assert "without its member" in told(extended(b"10 a=bcde\n") + bytes(1024))[0]


def test_maps_of_old_sparse_files_are_passed_over() -> None:
    header = tarfile.TarInfo("holes")
    header.type, header.size = tarfile.GNUTYPE_SPARSE, 512
    block = bytearray(header.tobuf(tarfile.GNU_FORMAT))
    block[482] = 1
    block[148:156] = b"%06o\0 " % tarfile.calc_chksums(bytes(block))[0]  # type: ignore[attr-defined]
    more, last = bytearray(b"7" * 512), bytearray(b"7" * 512)
    more[504], last[504] = 1, 0
    data = bytes(block + more + last) + b"x" * 512 + tar_of([("a", b"1")])
    assert told(data) == ["holes: a sparse file", "a"]


@pytest.mark.parametrize("can_seek", [True, False])
@given(cut=st.integers(min_value=0, max_value=4095), is_reading=st.booleans())
def test_any_cut_is_found(can_seek: bool, cut: int, is_reading: bool) -> None:
    data = tar_of([("a", b"x" * 700), ("b", b"y" * 900)], has_end=False) + bytes(1024)
    assert len(data) == 4096
    found = told(data[:cut], can_seek=can_seek, is_reading=is_reading)
    assert found[-1] not in ("a", "b")
    if cut >= 512 + 700:
        assert found[0] == "a"
    if cut >= 2048 + 900:
        assert found[1] == "b"
    assert found == told(data[:cut])


@given(place=st.integers(min_value=0, max_value=8191), byte=st.integers(min_value=0, max_value=255))
def test_no_flipped_byte_does_more_than_refuse(place: int, byte: int) -> None:
    data = bytearray(tar_of([("a", b"x" * 700), (LONG, b"y")], tarfile.PAX_FORMAT))
    data[place % len(data)] = byte
    found = told(bytes(data))
    assert 1 <= len(found) <= 4
    assert found == told(bytes(data), can_seek=False, is_reading=True)


def test_extended_headers_are_no_bomb() -> None:
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 1 << 40
    data = header.tobuf(tarfile.GNU_FORMAT) + bytes(2048)
    assert "extended header of 1099511627776 bytes" in told(data)[0]
    header.type, header.size = tarfile.XHDTYPE, 400_000
    many = (b"10 a=bcde\n" * 40_000)[:400_000]
    data = header.tobuf(tarfile.GNU_FORMAT) + many + bytes(-len(many) % 512)
    assert "without its member" not in told(data)[0]
    assert "no end mark" in told(data)[0]
