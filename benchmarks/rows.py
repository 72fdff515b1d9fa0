"""One row of a proof: a name, a measurement, a bar."""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

_COMPARE = {"<=": operator.le, ">=": operator.ge, "==": operator.eq}


@dataclass(frozen=True, kw_only=True)
class Row:
    """What must hold.

    Attributes:
        name: printed and used with ROWS=.
        measure: seed to number; a missing prerequisite raises `RowSkippedError`.
        rule, bar: how the number is judged.
    """

    name: str
    measure: Callable[[int], float]
    rule: Literal["<=", ">=", "=="]
    bar: float

    def holds(self, measured: float) -> bool:
        """Judge a measurement; not-a-number never holds."""
        return bool(_COMPARE[self.rule](measured, self.bar))

    @property
    def bar_text(self) -> str:
        """The bar as printed."""
        return f"{self.rule}{self.bar:g}"


class RowSkippedError(Exception):
    """A row cannot be measured here; says why."""
