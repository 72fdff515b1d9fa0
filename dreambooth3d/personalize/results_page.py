"""``index.html`` of a batch: totals and failures on top, then every subject with its pictures.

One file that needs no network. Names come from strangers, so that every text is shown, never
obeyed; the content policy allows the page's own script by its hash and nothing else.
"""

import base64
import hashlib
import html
import io
from collections.abc import Sequence
from pathlib import Path

from dreambooth3d.artifacts.image import letterbox, list_images, read_image
from dreambooth3d.artifacts.key import publish_file
from dreambooth3d.errors import ImageError
from dreambooth3d.personalize.outcome import Outcome

# Twice the side at which a picture is shown: sharp on dense screens.
_SIDE = 128
_QUALITY = 80
_MOST_PICTURES = 4
_COLUMNS = (
    ("subject", False),
    ("status", False),
    ("method", False),
    ("steps", True),
    ("best step", True),
    ("seconds", True),
    ("cost, s", True),
    ("loss", True),
    ("identity before", True),
    ("identity after", True),
    ("adapter", False),
)
_STYLE = """
:root { color-scheme: light }
body { font: 15px/1.45 system-ui, sans-serif; color: #222; background: #fff; margin: 2rem auto;
       max-width: 96rem; padding: 0 1rem }
h1 { font-size: 1.6rem; margin: 0 0 .75rem } h2 { font-size: 1.1rem; margin: 1.5rem 0 .5rem }
dl { display: flex; flex-wrap: wrap; gap: .75rem 2rem; margin: 0 0 1rem }
dt { color: #555; font-size: .85rem } dd { margin: 0; font-size: 1.3rem }
.failures { border-left: 4px solid #b3261e; padding: .1rem 1rem; background: #fdf3f2 }
.tools { display: flex; flex-wrap: wrap; gap: 1rem; align-items: center; margin: 1rem 0 }
input, select { font: inherit; padding: .25rem .5rem }
.wide { overflow-x: auto } table { border-collapse: collapse; width: 100% }
th, td { padding: .35rem .5rem; border-bottom: 1px solid #ddd; text-align: left;
         vertical-align: top }
th { border-bottom: 2px solid #888; white-space: nowrap; position: sticky; top: 0;
     background: #fff }
th button { font: inherit; font-weight: 600; border: 0; background: none; padding: 0;
            cursor: pointer } th[aria-sort] button { text-decoration: underline }
.number { text-align: right; font-variant-numeric: tabular-nums }
code { font-size: .85rem } .failed { color: #b3261e; font-weight: 600 }
.views { display: grid; grid-template-columns: 64px 64px; gap: 4px }
.views figure { margin: 0 }
.views img { width: 64px; height: 64px; object-fit: contain; border: 1px solid #ddd }
figcaption { font-size: .7rem; color: #555 }
.note { font-size: .8rem; color: #555; margin: .25rem 0 0; max-width: 16rem }
"""
_SCRIPT = """
const rows = [...document.querySelectorAll('tbody tr')];
const text = document.getElementById('text'), status = document.getElementById('status');
const count = document.getElementById('count');
function filter() {
  const wanted = text.value.toLowerCase();
  let shown = 0;
  for (const row of rows) {
    row.hidden = !row.dataset.text.includes(wanted)
      || (status.value !== '' && row.dataset.status !== status.value);
    shown += row.hidden ? 0 : 1;
  }
  count.textContent = shown + ' of ' + rows.length;
}
text.addEventListener('input', filter);
status.addEventListener('change', filter);
document.querySelectorAll('th button').forEach((button, column) => {
  button.addEventListener('click', () => {
    const head = button.parentElement;
    const order = head.getAttribute('aria-sort') === 'ascending' ? -1 : 1;
    for (const other of document.querySelectorAll('th')) other.removeAttribute('aria-sort');
    head.setAttribute('aria-sort', order === 1 ? 'ascending' : 'descending');
    const key = row => row.children[column].dataset.value ?? '';
    const isNumber = head.classList.contains('number');
    rows.sort((a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === '' || y === '') return (x === '') - (y === '');
      return order * (isNumber ? x - y : x.localeCompare(y));
    });
    document.querySelector('tbody').append(...rows);
  });
});
filter();
"""


def write_page(folder: Path, outcomes: Sequence[Outcome]) -> Path:
    """Write the page; pictures are read from the adapters in the batch's folder."""
    digest = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
    policy = (
        "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; "
        f"style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    )
    title = f"{sum(outcome.status != 'invalid' for outcome in outcomes)} subjects"
    body = [
        f"<h1>{title}</h1>",
        _totals(outcomes),
        _failures(outcomes),
        _tools(outcomes),
        _table(folder, outcomes),
    ]
    page = folder / "index.html"
    with publish_file(page) as aside:
        aside.write_text(
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
            + "\n".join(body)
            + f"\n<script>{_SCRIPT}</script>\n</body>\n</html>\n",
            encoding="utf-8",
        )
    return page


def _totals(outcomes: Sequence[Outcome]) -> str:
    ready = [outcome for outcome in outcomes if not outcome.is_failed]
    gains = [
        outcome.identity_after - outcome.identity_before
        for outcome in ready
        if outcome.identity_after is not None and outcome.identity_before is not None
    ]
    found = {
        "ready": str(len(ready)),
        "failed": str(sum(outcome.status == "failed" for outcome in outcomes)),
        "stopped": str(sum(outcome.status == "stopped" for outcome in outcomes)),
        "invalid rows": str(sum(outcome.status == "invalid" for outcome in outcomes)),
        "steps": str(sum(outcome.steps for outcome in ready)),
        "core or GPU hours": f"{sum(outcome.cost_seconds for outcome in ready) / 3600:.3f}",
        "mean gain of identity": f"{sum(gains) / len(gains):+.3f}" if gains else "–",
    }
    items = (f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in found.items())
    return f"<dl>{''.join(items)}</dl>"


def _failures(outcomes: Sequence[Outcome]) -> str:
    lines = [
        f"<li><b>{html.escape(outcome.subject)}</b> ({outcome.status}): "
        f"{html.escape(outcome.error)}</li>"
        for outcome in outcomes
        if outcome.is_failed
    ]
    if not lines:
        return ""
    items = f"<ul>{''.join(lines)}</ul>"
    return f'<section class="failures"><h2>Without an adapter</h2>{items}</section>'


def _tools(outcomes: Sequence[Outcome]) -> str:
    statuses = sorted({_status(outcome) for outcome in outcomes})
    options = "".join(f'<option value="{name}">{name}</option>' for name in statuses)
    return (
        '<div class="tools"><label>Find <input id="text" type="search"></label>'
        f'<label>Status <select id="status"><option value="">all</option>{options}</select></label>'
        '<span id="count" role="status"></span></div>'
    )


def _table(folder: Path, outcomes: Sequence[Outcome]) -> str:
    heads = "".join(
        f'<th scope="col"{_number_class(is_number)}><button type="button">{name}</button></th>'
        for name, is_number in _COLUMNS
    )
    heads += '<th scope="col">references</th><th scope="col">samples by step</th>'
    rows = "\n".join(_row(folder, outcome) for outcome in outcomes)
    return (
        f'<div class="wide"><table><thead><tr>{heads}</tr></thead>\n'
        f"<tbody>\n{rows}\n</tbody></table></div>"
    )


def _row(folder: Path, outcome: Outcome) -> str:
    values: tuple[str | float | None, ...] = (
        outcome.subject,
        _status(outcome),
        outcome.method,
        outcome.steps,
        outcome.best_step,
        outcome.seconds,
        outcome.cost_seconds,
        outcome.last_loss,
        outcome.identity_before,
        outcome.identity_after,
        outcome.sha256[:12],
    )
    cells = "".join(
        _cell(value, is_number=is_number)
        for value, (_, is_number) in zip(values, _COLUMNS, strict=True)
    )
    home = folder / outcome.adapter if outcome.adapter else None
    pictures = ("references", "samples")
    told = {"references": f"not used: {outcome.refused}" if outcome.refused else ""}
    cells += "".join(
        f"<td>{'' if home is None else _views(home / name)}{_note(told.get(name, ''))}</td>"
        for name in pictures
    )
    words = (outcome.subject, outcome.method, outcome.error, outcome.refused)
    searched = html.escape(" ".join(words).lower())
    return f'<tr data-text="{searched}" data-status="{_status(outcome)}">{cells}</tr>'


def _status(outcome: Outcome) -> str:
    return outcome.status if outcome.is_failed else "ready"


def _number_class(is_number: bool) -> str:
    return ' class="number"' if is_number else ""


def _cell(value: str | float | None, *, is_number: bool) -> str:
    if value is None:
        return f'<td{_number_class(is_number)} data-value="">–</td>'
    shown = f"{value:.4g}" if isinstance(value, float) else html.escape(str(value))
    key = html.escape(str(value))
    inner = f'<span class="failed">{shown}</span>' if shown == "failed" else shown
    return f'<td{_number_class(is_number)} data-value="{key}">{inner}</td>'


def _views(folder: Path) -> str:
    """Pictures of a folder, the last ones where there are many, each with its name below."""
    paths = list_images(folder)
    figures = (
        f"<figure>{_image(path)}"
        f"<figcaption>{html.escape(path.stem.removeprefix('step-').lstrip('0') or '0')}"
        "</figcaption></figure>"
        for path in paths[-_MOST_PICTURES:]
    )
    return f'<div class="views">{"".join(figures)}</div>'


def _note(text: str) -> str:
    return f'<p class="note">{html.escape(text)}</p>' if text else ""


def _image(path: Path) -> str:
    """A picture; one that was damaged since is said to be, and costs no more than itself."""
    try:
        return f'<img src="{_data_url(path)}" alt="{html.escape(path.stem)}">'
    except ImageError:
        return '<span class="failed">damaged</span>'


def _data_url(path: Path) -> str:
    buffer = io.BytesIO()
    letterbox(read_image(path), (_SIDE, _SIDE)).save(buffer, "JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
