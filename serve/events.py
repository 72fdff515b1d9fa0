"""Progress of a clip as server-sent events, from looks at the job table; no job depends on one."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from threading import Lock

from fastapi.concurrency import run_in_threadpool

from serve.replies import VideoReply

_LOOK_S = 0.25
_SILENT_S = 15.0
# A client that still listens comes back by itself; one that is gone must not hold its place.
_LONGEST_S = 300.0
_COMPARED = ("status", "step", "progress", "queue_position")


class StreamSlots:
    """Bounds the open streams: each holds a request that others need.

    Args:
        most: of all owners together.
        most_of_one: of one owner.
        clock: monotonic seconds.
    """

    def __init__(
        self, *, most: int, most_of_one: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most, self._most_of_one, self._clock = most, most_of_one, clock
        self._lock = Lock()
        self._open: dict[object, tuple[str, float]] = {}

    def take(self, owner: str) -> object | None:
        """A slot; None where there is none left.

        A client that leaves before its stream begins gives nothing back: its slot is free when no
        stream could still be open.
        """
        with self._lock:
            begun = self._clock() - _LONGEST_S
            self._open = {slot: found for slot, found in self._open.items() if found[1] > begun}
            own = sum(name == owner for name, _ in self._open.values())
            if len(self._open) >= self._most or own >= self._most_of_one:
                return None
            slot = object()
            self._open[slot] = (owner, self._clock())
            return slot

    def give_back(self, slot: object) -> None:
        """End a stream."""
        with self._lock:
            self._open.pop(slot, None)


async def video_events(
    look: Callable[[], VideoReply | None],
    *,
    pause_s: float = _LOOK_S,
    on_end: Callable[[], None] = lambda: None,
) -> AsyncGenerator[str, None]:
    """Yield the video whenever it has moved on, until it has ended or is gone.

    Args:
        look: reads the video as it is now, None once it is deleted; called in a thread.
        pause_s: seconds between two looks.
        on_end: told when the stream ends, whoever ends it.
    """
    try:
        async for event in _events(look, pause_s):
            yield event
    finally:
        on_end()


async def _events(
    look: Callable[[], VideoReply | None], pause_s: float
) -> AsyncGenerator[str, None]:
    ends = time.monotonic() + _LONGEST_S
    said_at, last = time.monotonic(), None
    yield "retry: 1000\n\n"
    while time.monotonic() < ends:
        video = await run_in_threadpool(look)
        if video is None:
            yield "event: deleted\ndata: {}\n\n"
            return
        now = tuple(getattr(video, name) for name in _COMPARED)
        if now != last:
            last, said_at = now, time.monotonic()
            yield f"event: video\ndata: {video.model_dump_json()}\n\n"
        elif time.monotonic() - said_at >= _SILENT_S:
            # Proxies close connections that say nothing.
            said_at = time.monotonic()
            yield ": still there\n\n"
        if video.status not in ("queued", "in_progress"):
            return
        await asyncio.sleep(pause_s)
