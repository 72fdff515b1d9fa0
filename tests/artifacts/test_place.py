import hashlib
import io
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dreambooth3d.artifacts.place import Place, PlacedFile
from dreambooth3d.artifacts.store import hide_keys
from dreambooth3d.errors import ArtifactError, InputError
from tests.s3_server import SECRET_KEY, s3_url

HOSTILE = ("-rf", "ü ☃.jpg", "two\nlines.jpg", "%41#?&.jpg", "'quotes\"", "back\\slash", "x" * 200)


@pytest.fixture(params=["local", "file", "memory", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """One empty place of every kind, real ones all."""
    if request.param == "local":
        return Place.parse(str(tmp_path / "with space#?"))
    if request.param == "file":
        return Place.parse(f"file://{tmp_path}/with%20space")
    if request.param == "memory":
        return Place.parse(f"memory://{tmp_path.name}/below")
    address = request.getfixturevalue("address")
    return Place.parse(s3_url(address, f"{tmp_path.name}/below"))


def test_what_is_written_is_read_listed_copied_and_found(place: Place) -> None:
    assert place.list() == ()
    assert not (place / "a/1.bin").exists()
    (place / "a/1.bin").write_bytes(b"0123456789")
    (place / "a/1.bin").write_bytes(b"abcdefghij")
    (place / "empty").write_bytes(b"")
    (place / "a/1.bin").copy_to(place / "b/c/2.bin")
    found = [(file.name, file.size) for file in place.list()]
    assert found == [("a/1.bin", 10), ("b/c/2.bin", 10), ("empty", 0)]
    assert (place / "b/c/2.bin").read_bytes() == b"abcdefghij"
    assert (place / "empty").read_bytes() == b""
    assert (place / "a/1.bin").is_file()
    assert (place / "a").exists()
    assert not (place / "a").is_file()


def test_bytes_are_read_where_asked(place: Place) -> None:
    (place / "x").write_bytes(bytes(range(256)) * 10)
    assert (place / "x").read_at(250, 10) == bytes([250, 251, 252, 253, 254, 255, 0, 1, 2, 3])
    assert (place / "x").read_at(2555, 10) == bytes([251, 252, 253, 254, 255])
    with (place / "x").open() as file:
        file.seek(100)
        assert file.read(2) == b"de"
        assert file.seek(0, io.SEEK_END) == 2560
    with (place / "x").stream() as file:
        assert file.read(3) + file.read() == bytes(range(256)) * 10


def test_a_compressed_file_stays_compressed(place: Place) -> None:
    (place / "x.tar.gz").write_bytes(b"\x1f\x8b not really")
    assert (place / "x.tar.gz").read_bytes() == b"\x1f\x8b not really"


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_names(place: Place, name: str) -> None:
    (place / name).write_bytes(b"x")
    assert [file.name for file in place.list()] == [name]
    assert (place / place.list()[0].name).read_bytes() == b"x"


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../up", "a/../../up", "a//b", ".", "nul\0"])
def test_no_name_leads_out(place: Place, name: str) -> None:
    with pytest.raises(InputError, match="must be relative"):
        _ = place / name


def test_a_large_file_arrives_whole(place: Place) -> None:
    data = os.urandom(1 << 20) * 11
    (place / "large").write_bytes(data)
    assert (place / "large").read_bytes() == data
    (place / "large").copy_to(place / "copy")
    assert (place / "copy").read_at(10 << 20, 64) == data[10 << 20 : (10 << 20) + 64]


def test_deleting_twice_is_deleting(tmp_path: Path, address: str) -> None:
    for place in (Place.parse(str(tmp_path)), Place.parse(s3_url(address, ""))):
        file = place / f"deleted-{tmp_path.name}"
        file.write_bytes(b"x")
        file.delete()
        file.delete()
        assert not file.exists()
        assert file.name not in [other.name for other in place.list()]


def test_a_place_travels_to_another_process(place: Place) -> None:
    if place.store.startswith("memory"):
        pytest.skip("memory is of one process")
    (place / "x").write_bytes(b"here")
    code = "import pickle, sys; print((pickle.load(sys.stdin.buffer) / 'x').read_bytes())"
    done = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps(place), capture_output=True, check=True
    )
    assert done.stdout == b"b'here'\n"


def test_a_missing_file_is_named(place: Place) -> None:
    for read in (
        (place / "gone").read_bytes,
        (place / "gone").open,
        (place / "gone").stream,
        lambda: (place / "gone").read_at(0, 1),
    ):
        with pytest.raises(InputError, match="gone must be readable, got"):
            read()
    with pytest.raises(ArtifactError, match="must be writable, got"):
        (place / "gone").copy_to(place / "copy")


def test_writing_is_one_step_and_leaves_nothing_aside(tmp_path: Path) -> None:
    place = Place.parse(str(tmp_path))
    (place / "x").write_bytes(b"old")
    (tmp_path / "blocked").mkdir()
    with pytest.raises(ArtifactError, match="blocked must be writable"):
        (place / "blocked").write_bytes(b"new")
    assert [file.name for file in place.list()] == ["x"]


def test_a_local_copy_shares_its_bytes_and_survives_a_new_original(tmp_path: Path) -> None:
    place = Place.parse(str(tmp_path))
    (place / "x").write_bytes(b"old")
    (place / "x").copy_to(place / "y")
    (place / "x").copy_to(place / "y")
    assert (tmp_path / "x").stat().st_ino == (tmp_path / "y").stat().st_ino
    (place / "x").write_bytes(b"new")
    assert (place / "y").read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x", "y"]


def test_places_copy_to_each_other(tmp_path: Path, address: str) -> None:
    here, there = Place.parse(str(tmp_path)), Place.parse(s3_url(address, tmp_path.name))
    (here / "x").write_bytes(b"travels")
    (here / "x").copy_to(there / "x")
    (there / "x").copy_to(here / "y")
    assert (here / "y").read_bytes() == b"travels"


def test_links_are_followed_once_and_broken_ones_are_listed(tmp_path: Path) -> None:
    (tmp_path / "in" / "a").mkdir(parents=True)
    (tmp_path / "in" / "a" / "1").write_bytes(b"1")
    (tmp_path / "in" / "a" / "round").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "gone").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "in" / "pipe")
    place = Place.parse(str(tmp_path / "in"))
    assert [file.name for file in place.list()] == ["a/1", "gone"]
    assert len(place.fingerprint(place.list())) == 64
    with pytest.raises(InputError, match="gone must be readable"):
        (place / "gone").read_bytes()


def test_relative_paths_and_homes_are_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert Place.parse("a/../b").local_path == tmp_path / "b"
    assert Place.parse("~/x").local_path == tmp_path / "home" / "x"
    assert Place.parse("file:///a%20b/c").local_path == Path("/a b/c")
    assert Place.parse("a/b").parent == Place.parse("a")
    assert Place.parse("a/b").name == "b"


def test_a_fingerprint_is_of_names_and_content(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x").write_bytes(b"1")
        (tmp_path / folder / "\udcff").write_bytes(b"2")
    os.utime(tmp_path / "two" / "x", (1, 1))
    one, two = (Place.parse(str(tmp_path / name)) for name in ("one", "two"))
    first = one.fingerprint(one.list())
    assert two.fingerprint(two.list()) == first
    (two / "x").write_bytes(b"3")
    assert two.fingerprint(two.list()) != first
    (tmp_path / "one" / "x").rename(tmp_path / "one" / "y")
    assert one.fingerprint(one.list()) != first


def test_what_is_too_large_to_hash_goes_by_its_date(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    os.truncate(tmp_path / "x", 5 * 1000**3)
    place = Place.parse(str(tmp_path))
    os.utime(tmp_path / "x", ns=(1, 1))
    first = place.fingerprint(place.list())
    os.utime(tmp_path / "x", ns=(2, 2))
    assert place.fingerprint(place.list()) != first


def test_a_fingerprint_of_a_store_goes_by_dates(address: str, tmp_path: Path) -> None:
    place = Place.parse(s3_url(address, tmp_path.name))
    # Not of a listing: this server tells the date of a new file only after a while.
    file = PlacedFile(name="x", size=1, mtime_ns=5)
    assert place.fingerprint([file]) == place.fingerprint([file])
    later = PlacedFile(name="x", size=1, mtime_ns=6)
    assert place.fingerprint([later]) != place.fingerprint([file])


@pytest.mark.parametrize("text", ["", "  ", "nul\0", "made-up://x/y", "s3://k:v3rysecret@b/x?no=1"])
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"must be .*, got") as caught:
        Place.parse(text)
    assert "v3rysecret" not in str(caught.value)


def test_keys_are_never_shown(address: str, tmp_path: Path) -> None:
    place = Place.parse(s3_url(address, tmp_path.name))
    shown = f"{place} {place!r} {place.url} {place / 'x'} {place.parent}"
    assert "loopback" not in shown
    wrong = Place.parse(s3_url(address, "x", keys="loopback-access:wr0ng%2Fsecret"))
    with pytest.raises(InputError, match="SIGNATURE") as caught:
        wrong.list()
    assert caught.value.__suppress_context__
    assert "wr0ng" not in str(caught.value)
    assert SECRET_KEY not in str(caught.value)
    with pytest.raises(ArtifactError, match="must be writable"):
        (wrong / "x").write_bytes(b"x")


@pytest.mark.parametrize(
    "text",
    ["http://bob:v3ry@host/bg/", "http://host/bg/?token=v3ry"],
)
def test_keys_of_web_addresses_are_never_shown(text: str) -> None:
    place = Place.parse(text)
    shown = f"{place} {place!r} {place.url} {place / 'x'}"
    assert "v3ry" not in shown
    assert "://" not in place.url.partition("://")[2]


def test_a_key_without_its_mark_is_a_key() -> None:
    assert hide_keys("s3://bob:v3ry is wrong", "s3://bob:v3ry") == "s3://***:*** is wrong"
    assert hide_keys("s3://host:9000/x", "s3://host:9000/x") == "s3://host:9000/x"


def test_what_is_below_a_place() -> None:
    home = Place.parse("/data/photos")
    assert (home / "x").is_within(home)
    assert home.is_within(home)
    assert not Place.parse("/data/photos2").is_within(home)
    assert not home.is_within(home / "x")


def test_the_environment_is_left_as_it_was(address: str) -> None:
    before = dict(os.environ)
    Place.parse(s3_url(address, "environment")).list()
    assert dict(os.environ) == before


def test_without_a_network_the_hub_is_one_sentence() -> None:
    code = (
        "from dreambooth3d.artifacts.place import Place\n"
        "from dreambooth3d.errors import InputError\n"
        "try: Place.parse('hf://datasets/owner/name/data').list()\n"
        "except InputError as error: print(error)\n"
    )
    # Nothing listens on the discard port.
    environment = os.environ | {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("place hf://datasets/owner/name/data must be readable, got: ")


def test_a_stream_that_breaks_leaves_no_file(tmp_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield b"first"
        raise KeyError("second")

    for home in (Place.parse(str(tmp_path / "here")), Place.parse(f"memory://{tmp_path.name}")):
        with pytest.raises(KeyError):
            (home / "a.txt").write_stream(broken())
        assert not (home / "a.txt").is_file()
        digest = (home / "a.txt").write_stream([b"one", b"two"])
        assert (home / "a.txt").read_bytes() == b"onetwo"
        assert digest == hashlib.sha256(b"onetwo").hexdigest()
