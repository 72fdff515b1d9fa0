import io
import json
import pickle
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dreambooth3d.artifacts.place import Place
from dreambooth3d.errors import ConfigError, InputError
from dreambooth3d.pairs.records import RawPair, Record, Rejected
from dreambooth3d.pairs.sources.captures import CapturesSource
from dreambooth3d.pairs.subjects import photograph
from tests.s3_server import s3_url


def source_of(path: Path, **settings: Any) -> CapturesSource:
    return CapturesSource(place=Place.parse(str(path)), **settings)


def read_all(source: CapturesSource) -> list[Record]:
    chunks = source.chunks()
    assert [chunk.index for chunk in chunks] == list(range(len(chunks)))
    # What a chunk holds goes through JSON on its way to a worker.
    found = [
        list(source.read(type(chunk)(**json.loads(json.dumps(chunk.__dict__))))) for chunk in chunks
    ]
    assert [len(records) for records in found] == [chunk.num_records for chunk in chunks]
    records = [record for records in found for record in records]
    assert [record.key for record in records] == [f"{i:08d}" for i in range(len(records))]
    return records


def pairs_of(source: CapturesSource) -> list[RawPair]:
    records = read_all(source)
    assert [record for record in records if isinstance(record, Rejected)] == []
    return [record for record in records if isinstance(record, RawPair)]


def photo(path: Path, number: int = 0) -> Path:
    """A small picture that no other number gives."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (number % 256, number // 256, 7)).save(path, format="PNG")
    return path


def test_a_folder_of_folders_gives_pairs_of_each_object(tmp_path: Path) -> None:
    for number in range(4):
        photo(tmp_path / "mug" / f"{number}.png", number)
        photo(tmp_path / "shoe" / "images" / f"{number}.png", 10 + number)
    (tmp_path / "mug" / "metadata.json").write_text(
        '{"id": "m1", "class_noun": "mug", "licence": "CC BY 4.0", "source": "a shelf"}'
    )
    pairs = pairs_of(source_of(tmp_path, pairs_per_subject=4))
    assert [pair.subject for pair in pairs] == ["mug"] * 4 + ["shoe"] * 4
    mug, shoe = pairs[0], pairs[4]
    assert (mug.class_noun, mug.licence, mug.attribution) == ("mug", "CC BY 4.0", "a shelf")
    # Nobody says what it is, so its folder does.
    assert (shoe.class_noun, shoe.licence, shoe.attribution) == ("shoe", "", "")
    assert mug.caption == shoe.caption == ""
    assert mug.meta["subject_id"] == "m1"
    for pair in pairs:
        assert pair.reference != pair.target
        assert pair.meta["reference_file"] != pair.meta["target_file"]
        file = tmp_path / str(pair.meta["target_file"])
        assert pair.target == file.read_bytes()
    assert Counter(str(pair.meta["target_file"]) for pair in pairs).most_common(1)[0][1] == 1


def test_photos_beside_a_folder_of_images_are_of_the_same_object(tmp_path: Path) -> None:
    photo(tmp_path / "Red_Mug-02" / "front.png", 1)
    photo(tmp_path / "Red_Mug-02" / "Images" / "back.png", 2)
    photo(tmp_path / "Red_Mug-02" / "REFERENCES" / "clean.png", 3)
    photo(tmp_path / "IMG_0001" / "1.png", 4)
    photo(tmp_path / "IMG_0001" / "2.png", 5)
    pairs = pairs_of(source_of(tmp_path, pairs_per_subject=2))
    assert {(pair.subject, pair.class_noun) for pair in pairs} == {
        ("IMG_0001", ""), ("Red_Mug-02", "red mug"),
    }  # fmt: skip
    mug = [pair for pair in pairs if pair.class_noun]
    assert {str(pair.meta["target_file"]) for pair in mug} == {
        "Red_Mug-02/front.png", "Red_Mug-02/Images/back.png",
    }  # fmt: skip
    assert {pair.meta["reference_file"] for pair in mug} == {"Red_Mug-02/REFERENCES/clean.png"}


def test_names_of_folders_are_the_same_from_every_system(tmp_path: Path) -> None:
    names = (unicodedata.normalize("NFD", "Café crème"), "red\u00a0mug", "x" * 180)
    for number, name in enumerate(names):
        photo(tmp_path / name / "1.png", 2 * number)
        photo(tmp_path / name / "2.png", 2 * number + 1)
    pairs = pairs_of(source_of(tmp_path))
    assert {pair.subject for pair in pairs} == {"Café crème", "red mug", "x" * 180}
    assert {"café crème", "red mug"} <= {pair.class_noun for pair in pairs}


def test_the_id_of_the_metadata_is_another_name_of_the_subject(tmp_path: Path) -> None:
    for name in ("mug", "shoe"):
        photo(tmp_path / name / "1.png", len(name))
        photo(tmp_path / name / "2.png", 10 + len(name))
    (tmp_path / "mug" / "metadata.json").write_text('{"id": "eval_0"}')
    found = {pair.subject: pair.aliases for pair in pairs_of(source_of(tmp_path))}
    assert found == {"mug": ("eval_0",), "shoe": ()}


def test_pieces_of_work_end_between_objects_where_they_can(tmp_path: Path) -> None:
    for subject in range(5):
        for number in range(5):
            photo(tmp_path / f"s{subject}" / f"{number}.png", 10 * subject + number)
    sizes = [c.num_records for c in source_of(tmp_path, pairs_per_subject=5).chunks()]
    assert sizes == [10, 10, 5]
    long = [c.num_records for c in source_of(tmp_path, pairs_per_subject=20).chunks()]
    assert long == [16, 16, 8, 16, 16, 8, 16, 4]


def test_remarks_tell_what_gives_nothing(tmp_path: Path) -> None:
    for number in range(5):
        photo(tmp_path / "mug" / f"{number}.png", number)
        photo(tmp_path / "IMG_01" / f"{number}.png", 10 + number)
        photo(tmp_path / "cup" / "references" / f"{number}.png", 20 + number)
    found = source_of(tmp_path, pairs_per_subject=2).remarks()
    assert found[0] == "objects 3, pictures 15, pairs 6"
    assert found[1].startswith("pictures in no pair ")
    assert found[2].startswith("objects without name and caption 1, such as IMG_01")
    assert found[3].startswith("objects with clean views alone 1, such as cup")
    (quiet,) = source_of(tmp_path / "mug", pairs_per_subject=20).remarks()
    assert quiet == "objects 1, pictures 5, pairs 20"
    photo(tmp_path / "mug" / "lid" / "1.png", 30)
    told = source_of(tmp_path / "mug", pairs_per_subject=20).remarks()
    assert told[1] == (
        "objects with one picture 1, such as lid/1.png: add photos, or they count as broken"
    )
    assert len(told) == 2


def test_metadata_among_the_photos_counts(tmp_path: Path) -> None:
    for number in range(2):
        photo(tmp_path / "b1" / "images" / f"{number}.png", number)
    notes = '{"class_noun": "plush bear", "licence": "CC0-1.0"}'
    (tmp_path / "b1" / "images" / "metadata.json").write_text(notes)
    pair = pairs_of(source_of(tmp_path))[0]
    assert (pair.class_noun, pair.licence) == ("plush bear", "CC0-1.0")


def test_one_subject_folder_is_a_source_too(tmp_path: Path) -> None:
    photograph(tmp_path / "train", 3, id="train", num_images=3, num_references=2, size=32)
    pairs = pairs_of(source_of(tmp_path / "train", pairs_per_subject=6))
    assert len(pairs) == 6
    assert {pair.subject for pair in pairs} == {"train"}
    assert all(str(pair.meta["reference_file"]).startswith("references/") for pair in pairs)
    assert all(str(pair.meta["target_file"]).startswith("images/") for pair in pairs)
    assert pairs[0].class_noun
    assert pairs[0].licence == "Apache-2.0"
    # Its prompt is of a clip to be made, not of a photo.
    assert pairs[0].caption == ""


def test_clean_views_alone_are_photos_too(tmp_path: Path) -> None:
    for number in range(3):
        photo(tmp_path / "mug" / "references" / f"{number}.png", number)
    pairs = pairs_of(source_of(tmp_path))
    assert len(pairs) == 6
    assert all(pair.reference != pair.target for pair in pairs)


def test_a_csv_lists_subjects_and_its_bad_rows_are_counted(tmp_path: Path) -> None:
    for number in range(2):
        photo(tmp_path / "photos" / "mug" / f"{number}.png", number)
        photo(tmp_path / "photos" / "shoe" / f"{number}.png", 10 + number)
    (tmp_path / "photos" / "mug" / "metadata.json").write_text('{"licence": "CC0-1.0"}')
    table = tmp_path / "lists" / "subjects.csv"
    table.parent.mkdir()
    table.write_text(
        "subject,class_noun,images\n"
        "my-mug,mug,../photos/mug\n"
        "g/ne,thing,../photos/nowhere\n"
        "my-shoe,shoe,../photos/shoe/*.png\n"
    )
    *pairs, bad = read_all(source_of(table))
    assert [pair.subject for pair in pairs if isinstance(pair, RawPair)] == [
        *["my-mug"] * 2,
        *["my-shoe"] * 2,
    ]
    assert isinstance(pairs[0], RawPair)
    assert (pairs[0].class_noun, pairs[0].licence) == ("mug", "CC0-1.0")
    assert isinstance(bad, Rejected)
    assert bad.reason == "bad_row"
    assert bad.origin == "row 2 (line 3)"
    # One record, however much is wrong with it.
    assert "images must be a folder" in bad.sentence
    assert "subject must be 1 to 64 letters" in bad.sentence
    first = source_of(table).fingerprint()
    text = table.read_text()
    table.write_text(
        text.replace("photos/mug", "photos/x").replace("photos/shoe/*.png", "photos/mug")
        .replace("photos/x", "photos/shoe")
    )  # fmt: skip
    assert source_of(table).fingerprint() != first
    table.write_text(text)
    photo(tmp_path / "photos" / "shoe" / "0.png", 99)
    assert source_of(table).fingerprint() != first


def test_texts_beside_photos_are_their_captions(tmp_path: Path) -> None:
    for number in range(2):
        photo(tmp_path / "mug" / f"{number}.png", number)
    (tmp_path / "mug" / "1.txt").write_text("A mug\n  on a shelf.\n", encoding="utf-8-sig")
    captions = {str(p.meta["target_file"]): p.caption for p in pairs_of(source_of(tmp_path))}
    assert captions == {"mug/0.png": "", "mug/1.png": "A mug on a shelf."}


def test_prompts_are_captions_only_when_asked_for(tmp_path: Path) -> None:
    for number in range(2):
        photo(tmp_path / "mug" / f"{number}.png", number)
    (tmp_path / "mug" / "metadata.json").write_text('{"class_noun": "mug"}')
    (tmp_path / "mug" / "prompt.txt").write_text("a [sks mug] on grass\na red mug at sea\n")
    assert {pair.caption for pair in pairs_of(source_of(tmp_path))} == {""}
    asked = pairs_of(source_of(tmp_path, captions="prompts"))
    captions = {str(pair.meta["target_file"]): pair.caption for pair in asked}
    assert captions == {"mug/0.png": "a mug on grass", "mug/1.png": "a red mug at sea"}
    (tmp_path / "mug" / "prompt.txt").write_text("one line\n")
    records = read_all(source_of(tmp_path, captions="prompts"))
    assert {r.reason for r in records if isinstance(r, Rejected)} == {"bad_caption"}


def test_every_odd_thing_is_counted_and_the_rest_goes_on(tmp_path: Path) -> None:
    photo(tmp_path / "alone" / "1.png")
    for name in ("good", "notes", "text"):
        for number in range(2):
            photo(tmp_path / name / f"{number}.png", number)
    (tmp_path / "notes" / "metadata.json").write_text('{"class_noun": 7}')
    (tmp_path / "text" / "0.txt").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "text" / "1.txt").write_text(" \n")
    (tmp_path / "good" / "IMG_7.HEIC").write_bytes(b"phone")
    (tmp_path / "link").mkdir()
    photo(tmp_path / "link" / "0.png")
    (tmp_path / "link" / "1.png").symlink_to(tmp_path / "nowhere.png")
    counted = Counter(
        record.reason if isinstance(record, Rejected) else "good"
        for record in read_all(source_of(tmp_path))
    )
    assert counted == {
        "good": 2,
        "missing_member": 1,
        "unsupported_picture": 1,
        "bad_row": 2,
        "bad_caption": 2,
        "unreadable_picture": 2,
    }
    for record in read_all(source_of(tmp_path)):
        if isinstance(record, Rejected):
            assert " must " in record.sentence
            assert ", got" in record.sentence
            assert str(tmp_path) not in record.sentence + record.origin


@pytest.mark.parametrize("text", ["{", "[]", "NaN", '{"licence": []}', "[" * 100_000])
def test_damaged_metadata_is_a_bad_row(tmp_path: Path, text: str) -> None:
    for number in range(2):
        photo(tmp_path / "mug" / f"{number}.png", number)
    (tmp_path / "mug" / "metadata.json").write_text(text)
    records = read_all(source_of(tmp_path))
    assert [r.reason for r in records if isinstance(r, Rejected)] == ["bad_row"] * 2


def test_hostile_names_are_read_and_never_become_keys(tmp_path: Path) -> None:
    names = ("-rf", "ü ☃", "two\nlines", "%2e%2e", "\x1b[31m", "byte \udcff", "x" * 200)
    for number, name in enumerate(names):
        photo(tmp_path / name / f"{name}.png", number)
        photo(tmp_path / name / "second.png", 100 + number)
    photo(tmp_path / ".hidden" / "1.png")
    photo(tmp_path / "-rf" / "._second.png")
    pairs = pairs_of(source_of(tmp_path, pairs_per_part=3))
    assert len(pairs) == 2 * len(names)
    assert len({pair.subject for pair in pairs}) == len(names)
    for pair in pairs:
        texts = (pair.subject, pair.origin, *map(str, pair.meta.values()))
        assert all(text.isprintable() for text in texts)
        assert Image.open(io.BytesIO(bytes(pair.target))).size == (8, 8)  # type: ignore[arg-type]


def test_the_order_of_numbers_is_the_order_of_photos(tmp_path: Path) -> None:
    for number in (10, 9, 1):
        photo(tmp_path / "mug" / f"{number}.png", number)
    pairs = pairs_of(source_of(tmp_path, pairs_per_subject=3))
    assert [pair.meta["target_file"] for pair in pairs] == ["mug/1.png", "mug/9.png", "mug/10.png"]


def test_the_same_folder_elsewhere_is_the_same_source(tmp_path: Path) -> None:
    for place in ("a", "b"):
        for number in range(3):
            photo(tmp_path / place / "x" / f"{number}.png", number)
    one, other = source_of(tmp_path / "a"), source_of(tmp_path / "b")
    assert one.fingerprint() == other.fingerprint()
    assert one.chunks() == other.chunks()
    again = pickle.loads(pickle.dumps(one))  # noqa: S301
    assert pairs_of(again) == pairs_of(other)
    (tmp_path / "b" / "README").write_text("does not count")
    assert one.fingerprint() == other.fingerprint()
    (tmp_path / "b" / "x" / "1.txt").write_text("counts")
    assert one.fingerprint() != other.fingerprint()
    assert one.fingerprint() != source_of(tmp_path / "a", pairs_per_subject=3).fingerprint()


def test_no_pictures_is_an_error_of_the_source(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere", tmp_path / "nowhere.csv"):
        with pytest.raises(InputError, match="must"):
            source_of(path).chunks()


@pytest.mark.parametrize("wrong", [{"pairs_per_subject": 0}, {"captions": "guess"}])
def test_settings_are_checked(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(wrong))} must be"):
        source_of(tmp_path, **wrong)


def test_photos_in_an_object_store_give_the_same_pairs(tmp_path: Path, address: str) -> None:
    far = Place.parse(s3_url(address, tmp_path.name))
    for number in range(3):
        name = f"mug ü/{number} #.png"
        (far / name).write_bytes(photo(tmp_path / "here" / name, number).read_bytes())
    (far / "mug ü/metadata.json").write_bytes(b'{"class_noun": "mug"}')
    (tmp_path / "here/mug ü/metadata.json").write_bytes(b'{"class_noun": "mug"}')
    assert pairs_of(CapturesSource(place=far)) == pairs_of(source_of(tmp_path / "here"))


def test_a_photo_that_went_away_is_counted(tmp_path: Path, address: str) -> None:
    far = Place.parse(s3_url(address, ""))
    for number in range(2):
        name = f"{tmp_path.name}-{number}.png"
        (far / name).write_bytes(photo(tmp_path / name, number).read_bytes())
    source = CapturesSource(place=far)
    (chunk,) = source.chunks()
    (far / name).delete()
    records = list(source.read(chunk))
    assert {r.reason for r in records if isinstance(r, Rejected)} == {"unreadable_picture"}


def test_real_photos_give_real_pairs(shared: Path) -> None:
    source = source_of(shared / "photos", pairs_per_subject=4)
    pairs = pairs_of(source)
    assert Counter(pair.subject for pair in pairs) == dict.fromkeys(
        ("backpack_dog", "bear_plushie", "can", "rc_car", "shiny_sneaker"), 4
    )
    assert all(pair.class_noun and pair.licence == "CC BY 4.0" for pair in pairs)
    assert all("google/dreambooth" in pair.attribution for pair in pairs)
    views = pairs_of(source_of(shared / "subjects"))
    assert len({pair.subject for pair in views}) == 8


def test_refused_records_name_their_object(tmp_path: Path) -> None:
    photo(tmp_path / "lonely" / "1.png", 1)
    for number in range(2):
        photo(tmp_path / "noted" / f"{number}.png", 10 + number)
    (tmp_path / "noted" / "metadata.json").write_text("{")
    (tmp_path / "shots").mkdir()
    (tmp_path / "shots" / "1.heic").write_bytes(b"")
    found = read_all(source_of(tmp_path, pairs_per_subject=1))
    refused = {record.subject: record.reason for record in found if isinstance(record, Rejected)}
    assert refused == {
        "lonely": "missing_member", "noted": "bad_row", "shots": "unsupported_picture",
    }  # fmt: skip


def test_who_must_be_named_is_named_whole(tmp_path: Path) -> None:
    for number in range(2):
        photo(tmp_path / "mug" / f"{number}.png", number)
    notes = {"licence": "L" * 300, "attribution": "https://example.org/" + "a" * 300 + "\n Bob"}
    (tmp_path / "mug" / "metadata.json").write_text(json.dumps(notes))
    for pair in pairs_of(source_of(tmp_path)):
        assert pair.licence == notes["licence"]
        assert pair.attribution == notes["attribution"].replace("\n", "")
