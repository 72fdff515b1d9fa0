"""Every record that was left out: what of it is kept, counted, listed and looked at."""

import base64
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

from PIL import Image

from dreambooth3d.artifacts.image import flatten, letterbox
from dreambooth3d.pairs.records import Rejected

REFUSALS_NAME = "dropped.jsonl"
# People look at a few refused pictures of each reason; more would only fill the disk.
_PICTURES_A_REASON = 3
_SIDE = 160


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A record that was left out.

    Attributes:
        key: of the sample it would have become.
        origin: where a person finds it.
        reason: what it is counted as.
        sentence: what must hold, what was found.
        picture: a small JPEG in base64; empty for most of a reason, and where nothing was decoded.
        subject: whose picture it would have been, or empty.
        blocked_by: entry of the blocklist that names it, or empty.
    """

    key: str
    origin: str
    reason: str
    sentence: str
    picture: str = ""
    subject: str = ""
    blocked_by: str = ""


class DropLog:
    """Counts refused records by reason and keeps what is told of each."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.refusals: list[Refusal] = []

    def add(self, rejected: Rejected) -> None:
        """Count one; its picture is not kept as it is, for a shard may have hundreds."""
        self.counts[rejected.reason] += 1
        is_shown = self.counts[rejected.reason] <= _PICTURES_A_REASON
        self.refusals.append(
            Refusal(
                key=rejected.key,
                origin=rejected.origin,
                reason=rejected.reason,
                sentence=rejected.sentence,
                picture=_small_jpeg(rejected.picture) if is_shown and rejected.picture else "",
                subject=rejected.subject,
                blocked_by=rejected.blocked_by,
            )
        )


def refusal_lines(refusals: Iterable[tuple[str, Refusal]]) -> Iterator[bytes]:
    """Yield the lines of `dropped.jsonl`: source, key, origin, reason and sentence of each.

    Args:
        refusals: label of the source, and what it refused.
    """
    for source, refusal in refusals:
        told = {"source": source, **asdict(refusal)}
        # The sentence has the entry.
        del told["picture"], told["blocked_by"]
        # Names of files may hold bytes that are no text; ASCII carries them.
        yield (json.dumps(told, sort_keys=True) + "\n").encode()


def first_of_each(refusals: Iterable[Refusal], most: int) -> tuple[Refusal, ...]:
    """Return the first few of each reason; those without a picture where none has one."""
    shown: dict[str, list[Refusal]] = {}
    plain: dict[str, list[Refusal]] = {}
    for refusal in refusals:
        kept = (shown if refusal.picture else plain).setdefault(refusal.reason, [])
        if len(kept) < most:
            kept.append(refusal)
    reasons = dict.fromkeys((*shown, *plain))
    return tuple(refusal for reason in reasons for refusal in shown.get(reason) or plain[reason])


def side_by_side(one: Image.Image, other: Image.Image) -> Image.Image:
    """Show two pictures that were compared in one, small."""
    both = Image.new("RGB", (2 * _SIDE, _SIDE), "white")
    for place, picture in enumerate((one, other)):
        both.paste(letterbox(picture, (_SIDE, _SIDE)), (place * _SIDE, 0))
    return both


def _small_jpeg(picture: Image.Image) -> str:
    small = flatten(picture)
    small.thumbnail((2 * _SIDE, _SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
