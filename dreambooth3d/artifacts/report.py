"""A report: ``index.html``, one file that needs nothing else, and ``report.json`` with the numbers.

The page works without a network and without scripts: pictures and clips are ``data:`` URIs, and
its content policy forbids everything else.
"""

import base64
import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from dreambooth3d.artifacts.chart import line_chart as line_chart
from dreambooth3d.artifacts.jsonfile import JsonValue, write_json
from dreambooth3d.artifacts.key import publish_file
from dreambooth3d.errors import ArtifactError, ConfigError

Cell: TypeAlias = str | float | Path | None

_STYLE = """
:root { color-scheme: light }
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff;
       max-width: 68rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.7rem; margin: 0 0 .5rem } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem }
p { max-width: 46rem }
.wide { overflow-x: auto; background:
  linear-gradient(to right, #fff 2rem, transparent) left / 3rem 100% no-repeat local,
  linear-gradient(to left, #fff 2rem, transparent) right / 3rem 100% no-repeat local,
  linear-gradient(to right, #0002, transparent) left / .8rem 100% no-repeat scroll,
  linear-gradient(to left, #0002, transparent) right / .8rem 100% no-repeat scroll }
table { border-collapse: collapse } th, td { padding: .35rem .7rem; border-bottom: 1px solid #ddd }
th { text-align: left; border-bottom: 2px solid #888 }
td { vertical-align: middle; text-align: left }
td.number { text-align: right; font-variant-numeric: tabular-nums }
td img { display: block; max-height: 9rem }
figure { margin: 1.5rem 0 } figure img, figure video { max-width: 100%; border: 1px solid #ddd }
figure video { min-width: 16rem }
figcaption { color: #555; max-width: 46rem }
"""
_POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"
_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (8, b"WEBP", "image/webp"),
    (4, b"ftyp", "video/mp4"),
)


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table; a cell is text, a number, the path of a picture, or None for "not measured"."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def __post_init__(self) -> None:
        for number, row in enumerate(self.rows, start=1):
            if len(row) != len(self.columns):
                raise ConfigError(
                    f"row {number} of table {self.title!r} must have {len(self.columns)} cells, "
                    f"got {len(row)}; pass one for each column"
                )


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A picture or clip: a path, the bytes of a PNG, JPEG, WebP or mp4, or the text of an SVG."""

    caption: str
    content: Path | bytes | str


def write_report(
    folder: Path,
    *,
    title: str,
    summary: str,
    tables: Sequence[Table],
    figures: Sequence[Figure],
    data: Mapping[str, JsonValue],
) -> Path:
    """Write ``index.html`` and ``report.json``; return the page.

    Args:
        folder: Made when absent; the two files are replaced.
        title: Heading of the page.
        summary: Plain text; a blank line starts a paragraph.
        tables: Shown first.
        figures: Shown below the tables.
        data: All numbers of the report; NaN and infinity become null in ``report.json``.
    """
    page = folder / "index.html"
    text = _page(title, summary, tables, figures)
    numbers: dict[str, JsonValue] = {
        "title": title,
        "summary": summary,
        "tables": [_table_to_json(table) for table in tables],
        "figures": [figure.caption for figure in figures],
        "data": {name: _finite(value) for name, value in data.items()},
    }
    with publish_file(folder / "report.json") as aside:
        write_json(aside, numbers)
    with publish_file(page) as aside:
        aside.write_text(text, encoding="utf-8")
    return page


def _page(title: str, summary: str, tables: Sequence[Table], figures: Sequence[Figure]) -> str:
    name = html.escape(title)
    paragraphs = [f"<p>{html.escape(part)}</p>" for part in summary.split("\n\n") if part.strip()]
    body = [f"<h1>{name}</h1>", *paragraphs, *map(_table, tables), *map(_figure, figures)]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{name}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in table.columns)
    rows = "\n".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in table.rows)
    return (
        f'<h2>{html.escape(table.title)}</h2>\n<div class="wide"><table>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>"
    )


def _cell(value: Cell) -> str:
    if isinstance(value, Path):
        return f"<td>{_media(value, alt=value.stem)}</td>"
    if isinstance(value, int | float):
        text = f"{value:.4g}" if isinstance(value, float) else str(value)
        return f'<td class="number">{text}</td>'
    return f"<td>{'–' if value is None else html.escape(value)}</td>"


def _figure(figure: Figure) -> str:
    caption = html.escape(figure.caption)
    media = _media(figure.content, alt=figure.caption)
    return f"<figure>{media}<figcaption>{caption}</figcaption></figure>"


def _media(content: Path | bytes | str, *, alt: str) -> str:
    kind, data = _load(content)
    source = f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
    if kind.startswith("video/"):
        return f'<video src="{source}" controls muted loop playsinline></video>'
    # An SVG inside <img> cannot run scripts or load anything.
    return f'<img src="{source}" alt="{html.escape(alt)}">'


def _load(content: Path | bytes | str) -> tuple[str, bytes]:
    if isinstance(content, Path):
        if not content.is_file():
            raise ArtifactError(
                f"picture of a report must be a file, got nothing at {content}; make it first"
            )
        data = content.read_bytes()
    else:
        data = content.encode() if isinstance(content, str) else content
    for offset, magic, kind in _MAGIC:
        if data[offset : offset + len(magic)] == magic:
            return kind, data
    if data.lstrip().startswith((b"<svg", b"<?xml")):
        return "image/svg+xml", data
    raise ArtifactError(
        f"picture of a report must be PNG, JPEG, WebP, mp4 or SVG, got bytes {data[:12]!r}; "
        "convert it"
    )


def _table_to_json(table: Table) -> JsonValue:
    rows: list[JsonValue] = [
        [cell.name if isinstance(cell, Path) else _finite(cell) for cell in row]
        for row in table.rows
    ]
    return {"title": table.title, "columns": list(table.columns), "rows": rows}


def _finite(value: JsonValue) -> JsonValue:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list):
        return [_finite(item) for item in value]
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    return value
