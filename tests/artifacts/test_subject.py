"""A table of subjects: good rows go on, every bad one is explained."""

from pathlib import Path

import pytest
from PIL import Image

from dreambooth3d.artifacts.catalogue import read_subjects_csv
from dreambooth3d.artifacts.prompt import plain_text
from dreambooth3d.artifacts.subject import (
    PromptParts,
    Subject,
    check_images,
    parse_prompt,
    read_subject,
    write_subject,
)
from dreambooth3d.errors import InputError

HEADER = "subject,class_noun,images"


def photos(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or ("1.png", "2.png"):
        Image.new("RGB", (8, 8), "red").save(folder / name)
    return folder


def table(folder: Path, *lines: str, header: str = HEADER) -> Path:
    path = folder / "subjects.csv"
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def only_problem(path: Path) -> tuple[int | None, int | None, str, str]:
    found = read_subjects_csv(path)
    assert found.subjects == ()
    (problem,) = found.problems
    return problem.row, problem.line, problem.field, problem.sentence


def test_every_column_arrives(tmp_path: Path) -> None:
    photos(tmp_path / "mug/images", "10.png", "9.png")
    photos(tmp_path / "cutouts", "a.png")
    path = table(
        tmp_path,
        'mug,coffee mug,mug/images,cutouts,tok,"a [tok coffee mug], blue | a [coffee mug]|",400,7',
        header="subject,class_noun,images,references,trigger,prompts,steps,seed",
    )
    found = read_subjects_csv(path)
    assert found.problems[0].field == "prompts"
    path.write_text(path.read_text().replace("a [coffee mug]|", "a [my Coffee Mug] |"))
    assert read_subjects_csv(path).problems == ()
    assert read_subjects_csv(path).subjects == (
        Subject(
            id="mug",
            class_noun="coffee mug",
            images=(tmp_path / "mug/images/9.png", tmp_path / "mug/images/10.png"),
            references=(tmp_path / "cutouts/a.png",),
            trigger="tok",
            prompts=("a [tok coffee mug], blue", "a [my Coffee Mug]"),
            steps=400,
            seed=7,
        ),
    )


def test_bom_crlf_column_order_and_blank_lines(tmp_path: Path) -> None:
    photos(tmp_path / "a")
    text = "images , subject,class_noun\r\n\r\na, s1 ,Häschen\r\n,,\r\nnone,s2,mug\r\n"
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    found = read_subjects_csv(tmp_path / "t.csv")
    assert [(s.id, s.class_noun) for s in found.subjects] == [("s1", "Häschen")]
    assert [(p.row, p.line, p.field) for p in found.problems] == [(2, 5, "images")]


def test_lines_are_right_below_cells_that_span_lines(tmp_path: Path) -> None:
    photos(tmp_path / "a")
    path = table(tmp_path, 's1,mug,a,"one |\ntwo"', "s2,mug,none,", header=HEADER + ",prompts")
    found = read_subjects_csv(path)
    assert found.subjects[0].prompts == ("one", "two")
    assert [(p.row, p.line) for p in found.problems] == [(2, 4)]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "must be a file, got nothing at"),
        (b"", "must have a header, got an empty file"),
        (b"\xef\xbb\xbf \r\n\n", "must have a header, got an empty file"),
        (b"\xff\xfes\x00", "must be UTF-8, got other bytes"),
        ("subject,class_noun,images\né,b,c".encode("latin-1"), "save it as 'CSV UTF-8'"),
        (b"subject,class_noun,images\n", "must have a row below its header"),
        (b"subject,class_noun\na,b", "got no images in"),
        (b"subject,images,nouns\na,b,c", r"among subject, .*seed, .* got 'nouns' in"),
        (b"subject;class_noun;images\na;b;c", "separated by commas"),
        (b"subject,subject,class_noun,images\na,b,c,d", "each once"),
        (b'subject,class_noun,images\n"a,b,c', "got an error in line 2 of .*check the quotes"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, content: bytes | None, text: str) -> None:
    path = tmp_path / "t.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=text) as caught:
        read_subjects_csv(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("line", "field", "text"),
    [
        ("a/b,mug,a,,", "subject", "must be 1 to 64 letters"),
        ("..,mug,a,,", "subject", "got '..'"),
        (",mug,a,,", "subject", "got ''"),
        ("x" * 65 + ",mug,a,,", "subject", "1 to 64"),
        ("s,,a,,", "class_noun", "class_noun must be words"),
        ("s,[mug],a,,", "class_noun", "without brackets"),
        ("s,mug,,,", "images", "folder or glob with pictures"),
        ("s,mug,none,,", "images", "got 'none'"),
        ("s,mug,empty,,", "images", "got 'empty'"),
        ("s,mug,a/*.jpg,,", "images", "got 'a/*.jpg'"),
        ("s,mug,a,0,", "steps", "steps must be a whole number of at least 1, got '0'"),
        ("s,mug,a,4.5,", "steps", "got '4.5'"),
        ("s,mug,a,many,", "steps", "got 'many'"),
        ("s,mug,a,,-1", "seed", "seed must be a whole number of at least 0, got '-1'"),
        ("s,mug,a,,1e3", "seed", "got '1e3'"),
        ("s,mug,a,,1,more", "row", "row must have at most 5 cells, got 6"),
    ],
)
def test_rows_that_cannot_be_used(tmp_path: Path, line: str, field: str, text: str) -> None:
    photos(tmp_path / "a")
    (tmp_path / "empty").mkdir()
    path = table(tmp_path, line, header=HEADER + ",steps,seed")
    row, at, found, sentence = only_problem(path)
    assert (row, at, found) == (1, 2, field)
    assert text in sentence


def test_all_problems_of_a_row_are_told_at_once(tmp_path: Path) -> None:
    path = table(tmp_path, "a b,,none,x", header=HEADER + ",steps")
    fields = [problem.field for problem in read_subjects_csv(path).problems]
    assert fields == ["subject", "class_noun", "images", "steps"]


def test_short_rows_lack_their_last_cells(tmp_path: Path) -> None:
    photos(tmp_path / "a")
    (subject,) = read_subjects_csv(table(tmp_path, "s,mug,a", header=HEADER + ",steps")).subjects
    assert subject.steps is None


def test_later_rows_of_the_same_subject_name_the_first(tmp_path: Path) -> None:
    photos(tmp_path / "a")
    found = read_subjects_csv(table(tmp_path, "s,mug,a", "t,mug,a", "s,mug,a", "s,cup,a"))
    assert [s.id for s in found.subjects] == ["s", "t"]
    assert [(p.row, p.field) for p in found.problems] == [(3, "subject"), (4, "subject")]
    assert all("'s' again after row 1" in problem.sentence for problem in found.problems)


def test_images_may_be_a_glob_or_absolute(tmp_path: Path) -> None:
    photos(tmp_path / "a", "x1.png", "x10.png", "x9.png", "y.png")
    photos(tmp_path / "references", "r.png")
    (tmp_path / "a/x.txt").write_text("no picture")
    path = table(tmp_path, "s,mug,a/x*", f"t,mug,{tmp_path / 'a'}")
    glob, absolute = read_subjects_csv(path).subjects
    assert [p.name for p in glob.images] == ["x1.png", "x9.png", "x10.png"]
    assert [p.name for p in absolute.images] == ["x1.png", "x9.png", "x10.png", "y.png"]
    assert [p.name for p in glob.references] == ["r.png"] == [p.name for p in absolute.references]


def test_references_come_from_the_column_or_beside_the_images_or_are_none(tmp_path: Path) -> None:
    photos(tmp_path / "s1/images")
    photos(tmp_path / "s1/references", "v.png")
    photos(tmp_path / "s2/images")
    photos(tmp_path / "cut", "c.png")
    lines = ["a,mug,s1/images,", "b,mug,s2/images,", "c,mug,s1/images,cut", "d,mug,s1,"]
    path = table(tmp_path, *lines, header=HEADER + ",references")
    names = [[p.name for p in s.references] for s in read_subjects_csv(path).subjects]
    assert names == [["v.png"], [], ["c.png"], ["v.png"]]
    path = table(tmp_path, "a,mug,s1/images,nowhere", header=HEADER + ",references")
    assert only_problem(path)[2] == "references"


@pytest.mark.parametrize("cell", ["s/references", "s"])
def test_views_alone_serve_as_images_too(tmp_path: Path, cell: str) -> None:
    views = photos(tmp_path / "s/references", "001.png", "002.png")
    (subject,) = read_subjects_csv(table(tmp_path, f"s,mug,{cell}")).subjects
    assert subject.images == subject.references == (views / "001.png", views / "002.png")


def test_check_images_names_every_bad_file_once(tmp_path: Path) -> None:
    photos(tmp_path / "s/references", "ok.png")
    (tmp_path / "s/references/bad.png").write_text("no picture")
    (subject,) = read_subjects_csv(table(tmp_path, "s,mug,s")).subjects
    (problem,) = check_images(subject)
    assert problem.field == "images"
    assert problem.sentence.startswith("s: image must be a JPEG")
    assert str(tmp_path / "s/references/bad.png") in problem.sentence
    (tmp_path / "s/references/bad.png").unlink()
    assert [p.sentence for p in check_images(subject) if "got nothing at" in p.sentence]


def test_check_images_is_silent_about_good_pictures(tmp_path: Path) -> None:
    photos(tmp_path / "a")
    (subject,) = read_subjects_csv(table(tmp_path, "s,mug,a")).subjects
    assert check_images(subject) == ()


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a mug", ("a mug", None, "")),
        ("a [sks mug] on a desk", ("a ", "sks mug", " on a desk")),
        ("[my own mug] here", ("", "my own mug", " here")),
        ("a [RHS Mug]", ("a ", "RHS Mug", "")),
    ],
)
def test_prompts_are_cut_at_their_brackets(text: str, parts: tuple[str, str | None, str]) -> None:
    before, span, after = parts
    found = parse_prompt(text, class_noun="mug", trigger="my own")
    assert found == PromptParts(before=before, span=span, after=after)
    assert found.text == text.replace("[", "").replace("]", "")


@pytest.mark.parametrize(
    "text", ["a [sks mug", "sks mug]", "]sks mug[", "[[sks mug]]", "[sks mug] and [sks mug]"]
)
def test_brackets_come_as_one_pair(text: str) -> None:
    with pytest.raises(InputError, match="must have at most one pair of brackets"):
        parse_prompt(text)


@pytest.mark.parametrize(
    "text", ["a [sks cup]", "a [red sks mug]", "a [mug]", "a []", "a [ ]", "a [mug sks]"]
)
def test_unknown_brackets_are_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"unknown prompt bracket: it must be \[<trigger> mug\]"):
        parse_prompt(text, class_noun="mug")


def test_noun_of_two_words() -> None:
    assert parse_prompt("a [rhs rubber duck]", class_noun="rubber duck").span == "rhs rubber duck"
    with pytest.raises(InputError, match="unknown prompt bracket"):
        parse_prompt("a [rubber duck]", class_noun="rubber duck")


def test_empty_prompts_are_refused() -> None:
    with pytest.raises(InputError, match="prompt must not be empty"):
        parse_prompt("  ")


def test_bad_prompts_of_a_row_are_problems(tmp_path: Path) -> None:
    photos(tmp_path / "a")
    path = table(tmp_path, "s,mug,a,a [sks cup]|a [sks mug|fine", header=HEADER + ",prompts")
    found = read_subjects_csv(path)
    assert [p.field for p in found.problems] == ["prompts", "prompts"]
    assert "unknown prompt bracket" in found.problems[0].sentence


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"id": "a/b"}, "subject must be 1 to 64"),
        ({"class_noun": " "}, "class_noun must be words"),
        ({"trigger": "a]"}, "trigger must be words"),
        ({"class_noun": "m" * 101}, "class_noun must have at most 100 letters, got 101"),
        ({"trigger": "s\ud800"}, "trigger must be text, got half a letter at place 2"),
        ({"prompts": ("a \ud800",)}, "prompt must be text"),
        ({"images": ()}, "images of s must not be empty"),
        ({"steps": 0}, "steps must be"),
        ({"seed": -1}, "seed must be 0 to"),
        ({"prompts": ("a [b]",)}, "unknown prompt bracket"),
    ],
)
def test_subjects_are_checked_when_made(change: dict[str, object], text: str) -> None:
    fields = {"id": "s", "class_noun": "mug", "images": (Path("a.png"),), "references": ()}
    with pytest.raises(InputError, match=text):
        Subject(**fields | change)  # type: ignore[arg-type]


def test_subject_folder_round_trip(tmp_path: Path) -> None:
    red, clear = Image.new("RGB", (8, 8), "red"), Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    for name in ("one", "two"):
        subject = write_subject(
            tmp_path / name,
            id="duck",
            class_noun="rubber duck",
            images=[red] * 11,
            references=[clear],
            trigger="tok",
            prompts=["a [tok rubber duck]"],
            notes={"licence": "CC0"},
        )
        assert subject == read_subject(tmp_path / name)
    assert [p.name for p in subject.images][-2:] == ["010.png", "011.png"]
    assert (subject.id, subject.trigger, subject.prompts) == (
        "duck",
        "tok",
        ("a [tok rubber duck]",),
    )
    assert Image.open(subject.references[0]).getpixel((0, 0)) == (255, 255, 255)
    one, two = (tmp_path / name / "metadata.json" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


def test_benchmark_folder_without_images_takes_its_trigger_from_the_prompt(tmp_path: Path) -> None:
    photos(tmp_path / "references", "001.png")
    (tmp_path / "metadata.json").write_text('{"id": "duck", "class_noun": "rubber duck"}')
    (tmp_path / "prompt.txt").write_text("a video of a [rhs rubber duck] in a pool")
    subject = read_subject(tmp_path)
    assert (subject.trigger, len(subject.images)) == ("rhs", 1)


def test_subject_folders_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "metadata.json").write_text('{"class_noun": 1}')
    with pytest.raises(InputError, match="class_noun must be words, got 1"):
        read_subject(tmp_path)
    (tmp_path / "metadata.json").write_text('{"class_noun": "mug"}')
    with pytest.raises(InputError, match="must have pictures in images/ or references/"):
        read_subject(tmp_path)


@pytest.mark.parametrize(
    ("prompt", "plain"),
    [
        ("a video of a [sks rubber duck] on a desk", "a video of a rubber duck on a desk"),
        ("a sks  Rubber duck and sks rubber ducks", "a Rubber duck and rubber ducks"),
        ("SKS at sea", "rubber duck at sea"),
        ("[xyz rubber duck] on [red brick", "rubber duck on red brick"),
        ("masks of a duck", "masks of a duck"),
        (" [] ", ""),
    ],
)
def test_a_prompt_is_said_without_brackets_and_trigger(prompt: str, plain: str) -> None:
    assert plain_text(prompt, class_noun="rubber duck", trigger="sks") == plain
