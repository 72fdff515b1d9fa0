"""`preview.html`: what is in a corpus and what was left out, for people, who judge data by looking.

One file without scripts or links to anywhere: pictures are `data:` URIs, and the content policy
forbids the rest. Names and captions come from strangers, so that every text is shown, never obeyed.
"""

import base64
import html
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from PIL import Image

from dreambooth3d.artifacts.image import flatten
from dreambooth3d.errors import ArtifactError, ConfigError
from dreambooth3d.pairs.letters import is_hidden, spelled_out
from dreambooth3d.pairs.preview_style import REASONS, STYLE
from dreambooth3d.vision.refusal import BAD_REASONS

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
# Twice the side at which a picture is shown: sharp on dense screens.
_SIDE = 256
_QUALITY = 80
_MAX_LETTERS = 400


@dataclass(frozen=True, kw_only=True)
class KeptExample:
    """A sample that is shown.

    Attributes:
        source: it comes from.
        key: of the sample.
        subject: whose pictures they are.
        caption: of the target.
        reference, target: encoded PNG or JPEG.
        similarity: of the object in both, -1 to 1; None when it was not measured.
        split: it is in, or empty.
        attribution: who must be named, or empty.
    """

    source: str
    key: str
    subject: str
    caption: str
    reference: bytes
    target: bytes
    similarity: float | None = None
    split: str = ""
    attribution: str = ""


@dataclass(frozen=True, kw_only=True)
class DroppedExample:
    """A record that was left out and is shown.

    Attributes:
        source: it comes from.
        reason: it is counted as.
        origin: where a person finds it.
        sentence: what must hold, what was found.
        picture: encoded PNG or JPEG; None when nothing could be decoded.
    """

    source: str
    reason: str
    origin: str
    sentence: str
    picture: bytes | None = None


@dataclass(frozen=True, kw_only=True)
class SourceTotals:
    """The numbers of one source.

    Attributes:
        name: of the source.
        num_samples: in the corpus.
        num_subjects: they show.
        dropped: records left out, by reason.
    """

    name: str
    num_samples: int
    num_subjects: int
    dropped: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        unknown = sorted(set(self.dropped) - set(REASONS))
        if unknown:
            raise ConfigError(
                f"reasons of drops must be known ones, got {', '.join(unknown)} in {self.name}; "
                "add them to the reasons"
            )


def preview_page(
    *,
    title: str,
    sources: Sequence[SourceTotals],
    kept: Sequence[KeptExample],
    dropped: Sequence[DroppedExample],
    licences: Mapping[str, int],
    attributions: Sequence[str] = (),
    splits: Mapping[str, int] | None = None,
) -> str:
    """Return the page; the same arguments give the same text.

    Args:
        title: heading, such as the name and key of the corpus.
        sources: totals, in the order they are shown.
        kept, dropped: examples, in the order they are shown; a few of each kind are enough.
        licences: samples by licence; the empty name stands for unknown.
        attributions: who must be named.
        splits: samples by split, where there are several.
    """
    reasons = _by_count(sources)
    _require_counted(kept, dropped, sources, reasons)
    body = [
        f"<h1>{_text(title)}</h1>",
        _tiles(sources, licences, splits or {}),
        _drop_table(sources, reasons),
        _licence_list(licences, attributions),
        *[_kept_sheet(totals, kept) for totals in sources],
        *[_dropped_sheet(reason, count, dropped) for reason, count in reasons.items()],
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(filter(None, body))
        + "\n</main>\n</body>\n</html>\n"
    )


def evenly_spaced(total: int, count: int) -> list[int]:
    """Return at most `count` of the places 0..total - 1, spread over all of them."""
    shown = min(total, count)
    return [place * total // shown for place in range(shown)]


def _by_count(sources: Iterable[SourceTotals]) -> dict[str, int]:
    """Reasons with their counts, the most frequent first."""
    total: Counter[str] = Counter()
    for source in sources:
        total.update(source.dropped)
    found = [(reason, count) for reason, count in total.items() if count]
    return dict(sorted(found, key=lambda item: (-item[1], item[0])))


def _require_counted(
    kept: Iterable[KeptExample],
    dropped: Iterable[DroppedExample],
    sources: Sequence[SourceTotals],
    reasons: Mapping[str, int],
) -> None:
    """Refuse examples that the totals do not speak of: they would not be shown."""
    names = {source.name for source in sources}
    found = {example.source for example in kept} | {example.source for example in dropped}
    lost = sorted(found - names) + sorted({example.reason for example in dropped} - set(reasons))
    if lost:
        raise ConfigError(
            f"examples must be of sources and reasons that are counted, got {', '.join(lost)}; "
            "add their totals"
        )


def _tiles(
    sources: Sequence[SourceTotals], licences: Mapping[str, int], splits: Mapping[str, int]
) -> str:
    num_samples = sum(source.num_samples for source in sources)
    num_dropped = sum(sum(source.dropped.values()) for source in sources)
    records = num_samples + num_dropped
    share = f"{num_dropped / records:.1%} of {_count(records)} records" if records else "no records"
    subjects = sum(source.num_subjects for source in sources)
    known = sorted(name for name, count in licences.items() if name and count)
    parts = ", ".join(f"{name} {_count(count)}" for name, count in sorted(splits.items()))
    tiles = (
        (_count(num_samples), "samples", parts or "reference and target pairs"),
        (_count(subjects), "subjects", f"{num_samples / max(1, subjects):.1f} samples each"),
        (_count(num_dropped), "left out", share),
        (_count(len(sources)), _plural(len(sources), "source"), _names(s.name for s in sources)),
        (_count(len(known)), _plural(len(known), "licence"), _names(known) or "none is known"),
    )
    cells = "".join(
        f"<li><strong>{number}</strong> {what}<small>{_text(note)}</small></li>"
        for number, what, note in tiles
    )
    return f'<ul class="tiles">{cells}</ul>'


def _drop_table(sources: Sequence[SourceTotals], reasons: Mapping[str, int]) -> str:
    if not reasons:
        return "<p>Nothing was left out.</p>"
    names = "".join(
        f'<th scope="col" class="number">{_text(source.name)}</th>' for source in sources
    )
    rows = "\n".join(_drop_row(reason, sources, reasons) for reason in reasons)
    return (
        '<h2 id="left-out">Left out</h2>\n<div class="wide"><table>\n'
        f'<thead><tr><th scope="col">reason</th>{names}'
        '<th scope="col" class="number">all</th><th scope="col"></th></tr></thead>\n'
        f"<tbody>\n{rows}\n</tbody></table></div>\n"
        '<p class="note">Orange: the input itself is broken. Blue: it is sound, but would teach '
        "little or the wrong thing.</p>"
    )


def _drop_row(reason: str, sources: Sequence[SourceTotals], reasons: Mapping[str, int]) -> str:
    counts = "".join(
        f'<td class="number">{_count(n) if (n := source.dropped.get(reason, 0)) else "·"}</td>'
        for source in sources
    )
    share = reasons[reason] / max(reasons.values())
    kind = "bad" if reason in BAD_REASONS else "gate"
    return (
        f'<tr><td><a href="#{reason}">{_text(reason)}</a> <small>{REASONS[reason]}</small></td>'
        f'{counts}<td class="number">{_count(reasons[reason])}</td>'
        f'<td class="bar"><div class="{kind}" style="width:{share:.1%}"></div></td></tr>'
    )


def _licence_list(licences: Mapping[str, int], attributions: Sequence[str]) -> str:
    known = sorted((item for item in licences.items() if item[1]), key=lambda i: (-i[1], i[0]))
    items = "".join(
        f"<li>{_text(name) if name else 'licence unknown'}: {_count(count)} "
        f"{_plural(count, 'sample')}</li>"
        for name, count in known
    )
    named = "".join(f"<li>{_text(name)}</li>" for name in attributions)
    credits_ = f"<details><summary>Attributions</summary><ul>{named}</ul></details>"
    return f"<h2>Licences</h2>\n<ul>{items}</ul>{credits_ if named else ''}" if items else ""


def _kept_sheet(totals: SourceTotals, kept: Sequence[KeptExample]) -> str:
    own = [example for example in kept if example.source == totals.name]
    cards = "\n".join(map(_kept_card, own))
    left_out = _count(sum(totals.dropped.values()))
    shown = f" Left the reference, right the target; {len(own)} shown." if own else ""
    return (
        f'<section><h2>{_text(totals.name)}</h2>\n<p class="note">{_count(totals.num_samples)} '
        f"{_plural(totals.num_samples, 'sample')} of {_count(totals.num_subjects)} "
        f"{_plural(totals.num_subjects, 'subject')}; {left_out} left out.{shown}</p>\n"
        f'<div class="sheet pairs">\n{cards}\n</div></section>'
    )


def _kept_card(example: KeptExample) -> str:
    where = f"sample {example.key}"
    facts = [example.split, example.key]
    if example.similarity is not None:
        facts.insert(0, f"similarity {example.similarity:.2f}")
    chips = " ".join(f"<span>{_text(fact)}</span>" for fact in facts if fact)
    credit = f'<p class="credit">{_text(example.attribution)}</p>' if example.attribution else ""
    return (
        f'<figure><div class="pair">{_image(example.reference, "reference", where)}'
        f"{_image(example.target, 'target', where)}</div>"
        f'<figcaption><p class="words">{_text(example.caption)}</p>'
        f'<p class="chips"><b>{_text(example.subject)}</b> {chips}</p>{credit}'
        "</figcaption></figure>"
    )


def _dropped_sheet(reason: str, count: int, dropped: Sequence[DroppedExample]) -> str:
    own = [example for example in dropped if example.reason == reason]
    cards = "\n".join(map(_dropped_card, own))
    return (
        f'<section><h2 id="{reason}">{reason} <small>{_count(count)}</small></h2>\n'
        f'<p class="note">{REASONS[reason]}. {len(own)} shown.</p>\n'
        f'<div class="sheet drops">\n{cards}\n</div></section>'
    )


def _dropped_card(example: DroppedExample) -> str:
    picture = (
        '<div class="none">no picture</div>'
        if example.picture is None
        else _image(example.picture, "left out", example.origin)
    )
    return (
        f'<figure>{picture}<figcaption><p class="words">{_text(example.sentence)}</p>'
        f'<p class="chips"><b>{_text(example.source)}</b> <code>{_text(example.origin)}</code></p>'
        "</figcaption></figure>"
    )


def _image(data: bytes, what: str, where: str) -> str:
    encoded = base64.b64encode(_thumbnail(data, where)).decode("ascii")
    return f'<img src="data:image/jpeg;base64,{encoded}" alt="{what} of {_text(where)}">'


def _thumbnail(data: bytes, where: str) -> bytes:
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as opened:
            small = flatten(opened)
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise ArtifactError(
            f"picture of a preview must be a PNG or JPEG, got damaged bytes for {where} ({error}); "
            "make the pairs again"
        ) from error
    small.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=_QUALITY)
    return buffer.getvalue()


def _text(raw: str) -> str:
    """Escape, and make what is invisible or reorders letters visible."""
    shown = raw if len(raw) <= _MAX_LETTERS else raw[: _MAX_LETTERS - 1] + "…"
    return html.escape("".join(map(_visible, shown)))


def _visible(character: str) -> str:
    return spelled_out(character) if is_hidden(character) else character


def _count(number: int) -> str:
    """Write a whole number with narrow spaces between thousands."""
    return f"{number:,}".replace(",", "\u202f")


def _plural(count: int, word: str) -> str:
    return word if count == 1 else f"{word}s"


def _names(names: Iterable[str], limit: int = 4) -> str:
    listed = list(names)
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more
