"""The preview shows what it is given, all of it, and obeys none of it."""

import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
from PIL import Image

from dreambooth3d.errors import ArtifactError, ConfigError
from dreambooth3d.pairs.preview import (
    DroppedExample,
    KeptExample,
    SourceTotals,
    evenly_spaced,
    preview_page,
)
from dreambooth3d.pairs.preview_style import REASONS
from dreambooth3d.vision.refusal import BAD_REASONS, GATE_REASONS

EVIL = "<script>alert(\"x\")</script> & 'y'</style>"


class Page(HTMLParser):
    """Collects tags, attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())

    def values(self, name: str) -> list[str]:
        return [value for found, value in self.attributes if found == name]

    @property
    def words(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))


def encoded(color: str = "red", side: int = 8, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), color).save(buffer, format=form)
    return buffer.getvalue()


KEPT = KeptExample(
    source="captures", key="captures-0001", subject="mug", caption="a mug on a desk",
    reference=encoded(), target=encoded("blue", form="JPEG"), similarity=0.8123, split="train",
    attribution="Ada",
)  # fmt: skip
DROPPED = DroppedExample(
    source="captures", reason="blurred", origin="mug/007.jpg",
    sentence="sharpness must be at least 12, got 3; take a sharper photo", picture=encoded(),
)  # fmt: skip
SOURCES = (
    SourceTotals(
        name="captures", num_samples=1234, num_subjects=8, dropped={"blurred": 2, "bad_row": 7}
    ),
    SourceTotals(name="scenes", num_samples=1, num_subjects=1, dropped={"blurred": 1}),
)


def page(**changes: Any) -> str:
    arguments: dict[str, Any] = {
        "title": "Pairs", "sources": SOURCES, "kept": [KEPT], "dropped": [DROPPED],
        "licences": {"CC-BY-4.0": 1200, "": 35}, "attributions": ["Ada", "Bob"],
    }  # fmt: skip
    return preview_page(**(arguments | changes))


def test_totals_are_at_the_top() -> None:
    words = Page(page(splits={"train": 1200, "held_out": 35})).words
    for fact in (
        "1 235 samples held_out 35, train 1 200", "9 subjects", "10 left out 0.8% of 1 245",
        "2 sources captures, scenes", "1 licence CC-BY-4.0", "CC-BY-4.0: 1 200 samples",
        "licence unknown: 35 samples", "Attributions Ada Bob",
    ):  # fmt: skip
        assert fact in words


def test_reasons_are_a_table_by_source_the_most_frequent_first() -> None:
    words = Page(page()).words
    assert "reason captures scenes all bad_row The row of a table could not be used 7 · 7" in words
    assert words.index("bad_row The row") < words.index("blurred The object is not sharp 2 1 3")


def test_a_sheet_per_source_and_per_reason() -> None:
    found = Page(page())
    for fact in (
        "a mug on a desk mug similarity 0.81 train captures-0001 Ada",
        "blurred 3 The object is not sharp. 1 shown.",
        "bad_row 7 The row of a table could not be used. 0 shown.",
        "sharpness must be at least 12, got 3; take a sharper photo captures mug/007.jpg",
        "1 sample of 1 subject; 1 left out.",
    ):
        assert fact in found.words
    assert found.tags.count("img") == 3
    assert found.values("alt") == [
        "reference of sample captures-0001", "target of sample captures-0001",
        "left out of mug/007.jpg",
    ]  # fmt: skip


def test_the_page_needs_nothing_but_itself() -> None:
    text = page()
    found = Page(text)
    assert all(source.startswith("data:image/jpeg;base64,") for source in found.values("src"))
    assert set(found.values("href")) == {"#blurred", "#bad_row"}
    assert {"#" + name for name in found.values("id")} >= set(found.values("href"))
    assert not {"script", "link", "iframe", "object", "form"} & set(found.tags)
    assert "default-src 'none'" in found.values("content")[0]
    assert "prefers-color-scheme: dark" in text
    assert "url(" not in text


def test_every_text_of_a_stranger_is_escaped() -> None:
    sources = [SourceTotals(name=EVIL, num_samples=1, num_subjects=1, dropped={"blurred": 1})]
    kept = replace(KEPT, source=EVIL, key=EVIL, subject=EVIL, caption=EVIL, split=EVIL,
                   attribution=EVIL)  # fmt: skip
    dropped = replace(DROPPED, source=EVIL, origin=EVIL, sentence=EVIL)
    text = page(title=EVIL, sources=sources, kept=[kept], dropped=[dropped],
                licences={EVIL: 1}, attributions=[EVIL], splits={EVIL: 1})  # fmt: skip
    plain = Page(page(sources=sources[:1], kept=[], dropped=[]))
    found = Page(text)
    assert "script" not in found.tags
    assert found.tags.count("style") == plain.tags.count("style") == 1
    assert found.words.count(EVIL) == 17
    assert text.count("<script") == 0


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("a\u202egpj.exe", r"a\u202egpj.exe"),
        ("bad\udcff.jpg", r"bad\udcff.jpg"),
        ("a\x00b\x1b[31m\nc", r"a\x00b\x1b[31m\nc"),
        ("zero\u200bwidth", r"zero\u200bwidth"),
        ("می\u200cخواهم 👩\u200d🚀", "می\u200cخواهم 👩\u200d🚀"),
        ("ü" * 500, "ü" * 399 + "…"),
    ],
)
def test_hidden_letters_of_names_are_shown(raw: str, shown: str) -> None:
    text = page(dropped=[replace(DROPPED, origin=raw)])
    assert shown in Page(text).texts
    text.encode()


def test_pictures_are_made_small_and_missing_ones_said() -> None:
    large = len(page(kept=[replace(KEPT, target=encoded("blue", side=3000))]))
    assert large < 40_000
    found = Page(page(dropped=[replace(DROPPED, picture=None)]))
    assert "no picture" in found.words
    with pytest.raises(ArtifactError, match="must be a PNG or JPEG, got damaged bytes for sample"):
        page(kept=[replace(KEPT, target=encoded("blue")[:40])])
    with pytest.raises(ArtifactError, match="must be a PNG or JPEG"):
        page(kept=[replace(KEPT, target=encoded("blue", form="GIF"))])


def test_an_empty_corpus_has_a_page() -> None:
    words = Page(page(sources=[], kept=[], dropped=[], licences={}, attributions=[])).words
    assert "0 samples" in words
    assert "Nothing was left out." in words


def test_the_same_input_gives_the_same_page() -> None:
    assert page() == page()
    assert page(licences={"": 35, "CC-BY-4.0": 1200}) == page()


def test_every_reason_can_be_told() -> None:
    assert set(REASONS) == BAD_REASONS | GATE_REASONS
    with pytest.raises(ConfigError, match="reasons of drops must be known ones, got bored in x"):
        SourceTotals(name="x", num_samples=0, num_subjects=0, dropped={"bored": 1})


def test_examples_without_totals_are_refused() -> None:
    with pytest.raises(ConfigError, match="that are counted, got elsewhere; add their totals"):
        page(kept=[replace(KEPT, source="elsewhere")])
    with pytest.raises(ConfigError, match="that are counted, got unsafe; add their totals"):
        page(dropped=[replace(DROPPED, reason="unsafe")])


def test_places_are_spread_over_the_corpus() -> None:
    assert evenly_spaced(10, 4) == [0, 2, 5, 7]
    assert evenly_spaced(3, 4) == [0, 1, 2]
    assert evenly_spaced(0, 4) == []
