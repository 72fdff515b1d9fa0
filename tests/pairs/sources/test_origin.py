import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreambooth3d.pairs.sources.origin import printable, subject_name

NAMES = st.text(alphabet=st.characters(exclude_categories=()), max_size=300)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a/b c.jpg", "a/b c.jpg"),
        ("-rf", "-rf"),
        ("two\nlines\t", "two\\nlines\\t"),
        ("ü☃", "ü☃"),
        ("byte \udcff", "byte \\udcff"),
        ("back\\slash", "back\\\\slash"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        ("a\u00a0b", "a\\xa0b"),
        ("Cafe\u0301", "Caf\u00e9"),
        ("می\u200cخواهم", "می\u200cخواهم"),
    ],
)
def test_letters_nobody_sees_are_spelled_out(name: str, shown: str) -> None:
    assert printable(name) == shown


@given(NAMES)
def test_any_name_becomes_a_short_visible_text(name: str) -> None:
    shown = printable(name)
    assert shown.translate(dict.fromkeys((0x200C, 0x200D))).isprintable()
    assert len(shown) <= 180
    assert bool(shown.encode()) == bool(name)


@given(NAMES, NAMES)
def test_names_that_look_different_are_shown_differently(one: str, other: str) -> None:
    is_same = unicodedata.normalize("NFC", one) == unicodedata.normalize("NFC", other)
    assert (printable(one) == printable(other)) == is_same or len(one) > 26 < len(other)


@pytest.mark.parametrize(
    ("name", "subject"),
    [
        ("Red Mug/2", "Red Mug/2"),
        (unicodedata.normalize("NFD", "Café crème"), "Café crème"),
        ("red\u00a0mug\u200b", "red mug"),
        ("two\nlines", "two lines"),
        ("byte \udcff", "byte \\udcff"),
        ("back\\slash", "back\\slash"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("\u200b", "\\u200b"),
        (" \x1f", "\\x1f"),
        ("\x1f  \x1f", "\\x1f \\x1f"),
        ("e\u200b\u0301", "\u00e9"),
        ("x" * 300, "x" * 300),
    ],
)
def test_names_that_look_alike_are_one_subject(name: str, subject: str) -> None:
    assert subject_name(name) == subject


@given(NAMES)
def test_the_name_of_a_subject_is_kept_when_it_is_read_again(name: str) -> None:
    subject = subject_name(name)
    assert subject_name(subject) == subject
    assert unicodedata.is_normalized("NFC", subject)
    assert bool(subject.encode()) == bool(name)
