"""Every form of a catalogue gives the same subjects; every problem is named; URLs come here."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dreambooth3d.artifacts.catalogue import check_catalogue, read_catalogue
from dreambooth3d.artifacts.catalogue_mirror import bring_here
from dreambooth3d.artifacts.place import Place
from dreambooth3d.errors import InputError

ROWS = [
    {"subject": "mug", "class_noun": "mug", "images": "mug/images", "priority": 2},
    {"subject": "duck", "class_noun": "rubber duck", "images": "duck", "steps": 7,
     "prompts": ["a video of a [sks rubber duck]", "a duck"]},
]  # fmt: skip


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for folder in ("mug/images", "duck"):
        (tmp_path / folder).mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (32, 32), (9, number, 0)).save(tmp_path / folder / f"{number}.png")
    return tmp_path


def write(home: Path, form: str) -> Path:
    path = home / f"subjects.{form}"
    if form == "csv":
        path.write_text(
            "subject,class_noun,images,priority,steps,prompts\n"
            "mug,mug,mug/images,2,,\n"
            "duck,rubber duck,duck,,7,a video of a [sks rubber duck]|a duck\n"
        )
    elif form == "jsonl":
        path.write_text("\n".join(json.dumps(row) for row in ROWS) + "\n")
    else:
        pq.write_table(pa.Table.from_pylist([{"steps": None, "prompts": None} | r for r in ROWS]),
                       path)  # fmt: skip
    return path


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_every_form_gives_the_same_subjects(form: str, home: Path) -> None:
    table = check_catalogue(read_catalogue(write(home, form)))
    assert table.problems == ()
    mug, duck = table.subjects
    assert (mug.id, mug.priority, mug.steps, len(mug.images)) == ("mug", 2, None, 2)
    assert (duck.class_noun, duck.priority, duck.steps) == ("rubber duck", 0, 7)
    assert duck.prompts == ("a video of a [sks rubber duck]", "a duck")


def test_a_folder_of_subjects_is_a_catalogue(home: Path) -> None:
    for name in ("mug", "duck"):
        (home / name / "metadata.json").write_text(json.dumps({"class_noun": name}))
    (home / "bare").mkdir()
    table = read_catalogue(home)
    assert [s.id for s in table.subjects] == ["duck", "mug"]
    assert [p.field for p in table.problems] == ["bare"]
    assert [s.id for s in read_catalogue(home / "mug").subjects] == ["mug"]


def test_bad_lines_of_jsonl_are_named_and_the_others_go_on(home: Path) -> None:
    path = write(home, "jsonl")
    bad = ["{", "[1]", '{"subject": "x", "colour": "red"}', '{"subject": {"a": 1}}', ""]
    path.write_text("\n".join([*bad, path.read_text()]))
    table = read_catalogue(path)
    assert len(table.subjects) == 2
    assert [(p.row, p.line, p.field) for p in table.problems] == [
        (1, 1, "row"), (2, 2, "row"), (3, 3, "colour"), (4, 4, "subject"),
    ]  # fmt: skip


def test_problems_come_in_order_of_rows(home: Path) -> None:
    (home / "mug" / "images" / "0.png").write_bytes(b"no picture")
    path = home / "t.csv"
    path.write_text("subject,class_noun,images\nmug,mug,mug/images\nduck,[x],duck\ne,e,\0\n")
    found = check_catalogue(read_catalogue(path)).problems
    assert [(p.row, p.field) for p in found] == [(1, "images"), (2, "class_noun"), (3, "images")]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("t.xlsx", b"", "must be a folder or one of .csv"),
        ("t.parquet", b"PAR1", "must be a readable Parquet file"),
        ("t.jsonl", b"\xff", "must be UTF-8"),
        ("t.jsonl", b"\n", "must have a row"),
    ],
)
def test_what_is_no_catalogue_is_one_sentence(
    name: str, content: bytes, sentence: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=sentence):
        read_catalogue(tmp_path / name)
    with pytest.raises(InputError, match="got nothing"):
        read_catalogue(tmp_path / "absent.csv")


@pytest.mark.parametrize("form", ["csv", "jsonl", "folder"])
def test_a_catalogue_behind_a_url_comes_here(form: str, home: Path, tmp_path: Path) -> None:
    for name in ("mug", "duck"):
        (home / name / "metadata.json").write_text(json.dumps({"class_noun": name}))
    (home / "other").mkdir()
    (home / "other" / "secret.png").write_bytes(b"not named by any row")
    name = "shop" if form == "folder" else f"shop/{write(home, form).name}"
    far = Place.parse(f"memory://{form}/shop")
    for path in (p for p in home.rglob("*") if p.is_file()):
        (far / path.relative_to(home).as_posix()).write_bytes(path.read_bytes())
    here = bring_here(f"memory://{form}/{name}", tmp_path / "cache")
    table = read_catalogue(here)
    assert {s.id for s in table.subjects} == {"mug", "duck"}
    (far / "duck" / "1.png").delete()
    bring_here(f"memory://{form}/{name}", tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache").rglob("duck/*.png")] == ["0.png"]
    if form != "folder":
        assert not list((tmp_path / "cache").rglob("secret.png"))
    with pytest.raises(InputError, match="got nothing at"):
        bring_here(f"memory://{form}/shop/absent.csv", tmp_path / "cache")


@pytest.mark.parametrize("images", [".", "*.png", "./[01].png"])
def test_pictures_beside_a_table_behind_a_url_come_too(
    images: str, home: Path, tmp_path: Path
) -> None:
    far = Place.parse(f"memory://beside-{len(images)}")
    for path in (home / "duck").glob("*.png"):
        (far / path.name).write_bytes(path.read_bytes())
    (far / "t.csv").write_bytes(f"subject,class_noun,images\nmug,mug,{images}\n".encode())
    table = read_catalogue(bring_here(f"{far.url}/t.csv", tmp_path / "cache"))
    assert [len(subject.images) for subject in table.subjects] == [2]


def test_a_folder_in_the_place_of_metadata_is_a_problem_of_its_subject(home: Path) -> None:
    (home / "mug" / "metadata.json").mkdir()
    (home / "duck" / "metadata.json").write_text(json.dumps({"class_noun": "duck"}))
    table = read_catalogue(home)
    assert [subject.id for subject in table.subjects] == ["duck"]
    assert "got no file at" in table.problems[0].sentence
