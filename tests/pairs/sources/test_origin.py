import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreambooth3d.pairs.sources.origin import printable

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
    ],
)
def test_letters_nobody_sees_are_spelled_out(name: str, shown: str) -> None:
    assert printable(name) == shown


@given(NAMES)
def test_any_name_becomes_a_short_visible_text(name: str) -> None:
    shown = printable(name)
    assert shown.isprintable()
    assert len(shown) <= 180
    assert bool(shown.encode()) == bool(name)


@given(NAMES, NAMES)
def test_different_names_stay_different(one: str, other: str) -> None:
    assert (printable(one) == printable(other)) == (one == other)
