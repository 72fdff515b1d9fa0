"""Subjects, not pictures, are held out; listed ones never come in."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dreambooth3d.errors import ConfigError, InputError
from dreambooth3d.pairs.splits import Blocklist, parse_blocklist, read_blocklist, split_of
from dreambooth3d.vision.refusal import RefusedError

SUBJECTS = [f"scenes-{number}" for number in range(4000)]


def held_out(share: float, seed: int = 0) -> set[str]:
    return {s for s in SUBJECTS if split_of(s, share, seed) == "held_out"}


def test_the_share_is_about_right_and_a_larger_one_keeps_who_was_held_out() -> None:
    sizes = [len(held_out(share)) / len(SUBJECTS) for share in (0.05, 0.2, 0.5)]
    assert sizes == pytest.approx([0.05, 0.2, 0.5], abs=0.02)
    assert held_out(0.05) < held_out(0.2) < held_out(0.5)
    assert held_out(0.0) == set()
    assert held_out(1.0) == set(SUBJECTS)


def test_seeds_hold_out_others() -> None:
    both = held_out(0.2) & held_out(0.2, seed=1)
    assert len(both) / len(SUBJECTS) == pytest.approx(0.04, abs=0.02)


def test_another_process_with_another_hash_seed_says_the_same() -> None:
    code = (
        "from dreambooth3d.pairs.splits import split_of, Blocklist\n"
        "print([split_of(f'cup-{n}', 0.3, 7) for n in range(50)])\n"
        "print(Blocklist.of(['b', 'a', 'c*', 'd*']).fingerprint())"
    )
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", code]
    found = {
        subprocess.run(
            command, env={"PYTHONHASHSEED": seed}, cwd=root, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1
    assert b"held_out" in found.pop()


@settings(deadline=None)
@given(st.text(st.characters()), st.integers(0, 2**63))
def test_any_name_has_a_split(name: str, seed: int) -> None:
    assert split_of(name, 0.5, seed) == split_of(name, 0.5, seed)


def test_spellings_of_a_name_share_their_split() -> None:
    for share in (0.1, 0.5, 0.9):
        assert (
            len({split_of(n, share, 0) for n in ("Café", "cafe\u0301", " CAFÉ ", "ca\u00adfé")})
            == 1
        )
    assert split_of("a\udcff", 0.5, 0) in ("train", "held_out")


def test_a_share_outside_of_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="held_out_share must be 0 to 1, got 1"):
        split_of("a", 1.5, 0)


def test_a_text_file_of_ids_prefixes_and_comments(tmp_path: Path) -> None:
    path = tmp_path / "blocked.txt"
    path.write_bytes(
        "\ufeff# of the evaluation\r\n\r\n moose #1 \r\nduck-*  # all ducks\nÉclair\n".encode()
    )
    blocked = read_blocklist(path)
    assert blocked == Blocklist(subjects=frozenset({"moose", "éclair"}), prefixes=("duck-",))
    assert [n for n in ("moose", "MOOSE", "moose2", "duck-7", "duck", "E\u0301clair") if
            blocked.is_blocked(n)] == ["moose", "MOOSE", "duck-7", "E\u0301clair"]  # fmt: skip


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        ("table lamp", "table-lamp"),
        ("table_lamp", "Table  Lamp"),
        ("cafe\u0301 crème", "CAFÉ CRÈME"),
        ("eval_0", "photos/2024/eval 0"),
        ("ﬁsh", "fish"),
        ("mug", "m\u00adug\u200b"),
        ("red-*", "shelf/red mug"),
        ("_", "_"),
        ("x" * 200, "X" * 200),
    ],
)
def test_an_entry_is_found_however_it_is_spelled(entry: str, name: str) -> None:
    assert parse_blocklist(entry, where="x").entry_for(name) == entry


@pytest.mark.parametrize(
    ("entry", "name"),
    [("red-*", "redder"), ("_*", "mug"), ("table", "table lamp"), ("mug", "mug/2"), ("-", "a")],
)
def test_an_entry_blocks_no_other_name(entry: str, name: str) -> None:
    assert not parse_blocklist(entry, where="x").is_blocked(name)


def test_other_names_of_a_subject_count() -> None:
    blocked = Blocklist.of(["eval_0"])
    blocked.check("mug", ("m1", ""))
    with pytest.raises(RefusedError, match=r"got 'mug' \(listed as 'eval_0'\)"):
        blocked.check("mug", ("Eval-0",))


def test_entries_that_block_nothing_are_told() -> None:
    blocked = Blocklist.of(["Mug", "eval_0", "duck-*"])
    assert list(blocked.remarks({"Mug", "eval_0", "duck-*"})) == []
    (told,) = blocked.remarks({"Mug"})
    assert told.startswith("blocklist entries that match no subject 2 of 3, such as 'duck-*': ")


@pytest.mark.parametrize(
    "text",
    ["subject;why\nmug;x\n", "Subject\nmug\n", "why\tSUBJECT\n\tmug\n", "Why, Subject\n,mug"],
)
def test_tables_are_read_as_spreadsheets_write_them(text: str) -> None:
    assert parse_blocklist(text, where="x") == Blocklist.of(["mug"])


def test_a_refused_subject_is_counted_by_its_reason() -> None:
    blocked = Blocklist.of(["moose"])
    blocked.check("mouse")
    with pytest.raises(RefusedError, match="not be on the blocklist, got 'Moose'") as refused:
        blocked.check("Moose")
    assert refused.value.reason == "blocklisted"


def test_a_table_of_subjects_is_a_blocklist() -> None:
    text = (
        'class_noun,subject,images\n"duck, pink",duck,a\n# not this one\nmug,"black, gold mug",b\n'
    )
    blocked = parse_blocklist(text, where="subjects.csv")
    assert blocked.subjects == {"duck", "black, gold mug"}
    assert parse_blocklist("subject\nduck\n", where="x") == Blocklist.of(["duck"])
    with pytest.raises(InputError, match="every row of a blocklist must have a subject"):
        parse_blocklist("class_noun,subject\nmug\n", where="x")


@pytest.mark.parametrize("text", ["", "# nothing\n\n", "subject\n"])
def test_a_list_that_blocks_nothing_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="must name a subject, got none in list"):
        parse_blocklist(text, where="list.txt")


@pytest.mark.parametrize("entry", ["*", "du*ck", "*duck", "**", "\u200b", " *"])
def test_a_star_elsewhere_than_at_the_end_is_refused(entry: str) -> None:
    with pytest.raises(InputError, match="final"):
        parse_blocklist(entry, where="list.txt")


def test_a_cell_without_end_is_refused() -> None:
    with pytest.raises(InputError, match="must be lines or a CSV table, got an error in x"):
        parse_blocklist('subject\n"' + "a" * 200_000, where="x")


def test_unusable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="got nothing at"):
        read_blocklist(tmp_path / "none.txt")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="must be UTF-8"):
        read_blocklist(tmp_path / "bytes.txt")
    with pytest.raises(ConfigError, match="would match everything"):
        Blocklist.of([""])


def test_the_fingerprint_tells_lists_apart_and_nothing_else() -> None:
    assert Blocklist.of(["a", "b*"]).fingerprint() == Blocklist.of(["B*", "A", "a"]).fingerprint()
    others = [Blocklist(), Blocklist.of(["a", "b"]), Blocklist.of(["a*", "b"]), Blocklist.of(["a"])]
    assert len({o.fingerprint() for o in others}) == 4
    assert not Blocklist().is_blocked("anything")
