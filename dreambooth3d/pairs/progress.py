"""How far a pass over a corpus is."""

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from dreambooth3d.pairs.inventory import told

Report = Callable[[str], None]


class Progress:
    """Lines with rate, drops and the time that is left, one a second at most.

    Args:
        what: is done to the records, or `records`.
        unit: what is kept from an earlier run.
        total: records expected.
        report: told the lines.
    """

    def __init__(self, what: str, unit: str, total: int, report: Report) -> None:
        self._what, self._unit, self._total, self._report = what, unit, total, report
        self._dropped: Counter[str] = Counter()
        self._made = self._kept = self._kept_parts = 0
        self._started = self._said = time.monotonic()

    def add(self, row: Mapping[str, Any]) -> None:
        """Count one part or shard."""
        self._dropped.update(json.loads(row["dropped"]))
        if row["is_kept"]:
            self._kept += int(row["num_records"])
            self._kept_parts += 1
        else:
            self._made += int(row["num_records"])
        if time.monotonic() - self._said >= 1:
            self._said = time.monotonic()
            self._report(self._line())

    def close(self) -> None:
        """Say how it ended."""
        if self._kept_parts:
            self._report(f"pairs: {self._kept_parts} {self._unit} kept from an earlier run")
        self._report(self._line())

    def _line(self) -> str:
        done = self._made + self._kept
        rate = self._made / max(1e-3, time.monotonic() - self._started)
        drops = f" ({told(self._dropped)})" if self._dropped else ""
        left = max(0, self._total - done)
        speed = f", {rate:.0f}/s" if self._made else ""
        eta = f", eta {left / rate:.0f} s" if left and rate else ""
        return (
            f"pairs: {self._what} {done}/{self._total}{speed}, "
            f"dropped {self._dropped.total()}{drops}{eta}"
        )
