"""Which subject adapters can be served: every one below some folders, by id alone.

Layout: `<root>/<batch>/adapters/<subject>/adapter.json`. The batch named by `<root>/LATEST` comes
first, then the newest by date; the first adapter of an id wins. A new folder is found at once.
Of an uploaded subject the root is `<uploads>/<subject>/personalize`: all that was made of a
client's photos goes with one folder.
"""

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from dreambooth3d.artifacts.adapter import CARD_NAME, AdapterCard, load_card
from dreambooth3d.artifacts.jsonfile import read_json
from dreambooth3d.errors import ArtifactError
from dreambooth3d.personalize.keys import CURVE_NAME, STAGE

_logger = logging.getLogger(__name__)
_RESCAN_S = 1.0

Signature = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True, kw_only=True)
class ServableSubject:
    """One adapter folder with its card; `created_at` in Unix seconds."""

    id: str
    folder: Path
    card: AdapterCard
    created_at: float

    @property
    def phrase(self) -> str:
        """The words that name the subject in a prompt."""
        return f"{self.card.trigger} {self.card.class_noun}"

    @property
    def scores(self) -> dict[str, float | None]:
        """How well the adapter does on held-out views; nothing where nobody judged it."""
        path = self.folder / CURVE_NAME
        if not path.is_file():
            return {}
        try:
            curve: dict[str, Any] = read_json(path, what="loss curve")
        except ArtifactError as error:
            _logger.warning("scores of %s are not shown: %s", self.id, error)
            return {}
        judgements = {judged["step"]: judged for judged in curve.get("judgements", ())}
        best = judgements.get(curve.get("best_step"))
        if best is None:
            return {}
        return {
            "identity_before": judgements[min(judgements)]["identity"],
            "identity": best["identity"],
            "held_out_loss": best["loss"],
        }

    def view(self, number: int) -> Path | None:
        """Return the reference view of this number, counted from 1; None beyond the last."""
        path = self.folder / "references" / f"{number:03d}.png"
        return path if 1 <= number <= self.card.num_views and path.is_file() else None


class SubjectCatalog:
    """Looks adapters up below one or more roots, and uploads; safe from several threads."""

    def __init__(self, *roots: Path, uploads: Path | None = None) -> None:
        self._roots, self._uploads = roots, uploads
        self._lock = Lock()
        self._found: dict[str, ServableSubject] = {}
        self._signature: Signature = ()
        self._looked_at = -_RESCAN_S

    def get(self, subject_id: str) -> ServableSubject | None:
        """Find a subject by id; the folder is looked at again for one that is not there."""
        found = self._subjects(_RESCAN_S).get(subject_id)
        is_there = found is not None and (found.folder / CARD_NAME).is_file()
        return found if is_there else self._subjects(0.0).get(subject_id)

    def all(self) -> tuple[ServableSubject, ...]:
        """Every servable subject, by id."""
        found = self._subjects(0.0)
        return tuple(found[key] for key in sorted(found))

    def _subjects(self, max_age_s: float) -> dict[str, ServableSubject]:
        with self._lock:
            now = time.monotonic()
            if now - self._looked_at >= max_age_s:
                self._looked_at = now
                cards = self._list_cards()
                signature = tuple((str(p), *_stamp(p)) for p in cards)
                if signature != self._signature:
                    self._signature = signature
                    self._found = _read_cards(cards)
            return self._found

    def _list_cards(self) -> list[Path]:
        uploads = () if self._uploads is None else sorted(self._uploads.glob(f"*/{STAGE}"))
        return [card for root in (*self._roots, *uploads) for card in _list_root(root)]


def _list_root(root: Path) -> list[Path]:
    pointer = root / "LATEST"
    newest = pointer.read_text(encoding="utf-8").strip() if pointer.is_file() else ""
    batches = [p for p in root.glob("*/adapters") if not _is_hidden(p.parent)]
    batches.sort(key=lambda p: (p.parent.name == newest, _stamp(p)[0]), reverse=True)
    return [
        card
        for batch in batches
        for card in sorted(batch.glob(f"*/{CARD_NAME}"))
        if not _is_hidden(card.parent)
    ]


def _is_hidden(path: Path) -> bool:
    return path.name.startswith(".")


def _stamp(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return 0, 0
    return stat.st_mtime_ns, stat.st_size


def _read_cards(paths: list[Path]) -> dict[str, ServableSubject]:
    found: dict[str, ServableSubject] = {}
    for path in paths:
        try:
            card = load_card(path.parent)
        except ArtifactError as error:
            _logger.warning("adapter %s is not served: %s", path.parent.name, error)
            continue
        subject_id = card.subject or path.parent.name
        if card.kind == "subject" and subject_id not in found:
            found[subject_id] = ServableSubject(
                id=subject_id,
                folder=path.parent,
                card=card,
                created_at=_stamp(path)[0] / 1e9,
            )
    return found
