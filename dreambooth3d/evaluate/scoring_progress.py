"""Lines about the scoring of many clips."""

import time
from collections.abc import Callable

from dreambooth3d.errors import ArtifactError

_SAY_EVERY_SECONDS = 15.0
# Frames before which the time that is left would be that of loading models.
_FIRST_FRAMES = 8


class ScoringProgress:
    """Says where the work stands, and when it will be done.

    Args:
        total: clips.
        report: told each line.
    """

    def __init__(self, total: int, report: Callable[[str], None]) -> None:
        self._total, self._report = total, report
        self._done = self._known = 0
        self._name, self._is_known = "", False
        self._started = self._said = time.monotonic()

    def start(self, name: str, *, is_known: bool) -> None:
        """Begin a clip; `is_known` when it was scored before."""
        self._name, self._is_known = name, is_known
        self._known += is_known

    def frame(self, done: int, total: int) -> None:
        """So many frames of the clip are done; tells it now and then."""
        now = time.monotonic()
        if now - self._said >= _SAY_EVERY_SECONDS:
            self._said = now
            share = self._done - self._known + done / total
            is_known = self._done > self._known or done >= _FIRST_FRAMES
            left = f", about {self._left(share, now)} left" if is_known else ""
            self._report(
                f"evaluate: {self._name} frame {done} of {total}, clip {self._done + 1} of "
                f"{self._total}{left}"
            )

    def leave_out(self, error: ArtifactError) -> None:
        """The clip cannot be scored."""
        self._done += 1
        self._report(f"evaluate: {self._name} is not scored: {error}")

    def finish(self, identity: float) -> None:
        """The clip is scored."""
        self._done += 1
        known = ", scored before" if self._is_known else ""
        left = ""
        if self._done < self._total and self._done > self._known:
            rest = self._left(self._done - self._known, time.monotonic())
            left = f", about {rest} left"
        self._report(
            f"evaluate: {self._name} identity {identity:.3f} "
            f"({self._done} of {self._total}{known}{left})"
        )

    def _left(self, share: float, now: float) -> str:
        rest = self._total - self._known - share
        seconds = (now - self._started) / max(share, 1e-6) * max(rest, 0)
        return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
