"""What could not be measured: named with the reason, and never a zero."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A number that is left out.

    Attributes:
        name: of the number, as the tables would show it.
        reason: what is missing.
    """

    name: str
    reason: str
