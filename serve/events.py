"""Progress of a clip as server-sent events, from looks at the job table; no job depends on one."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable

from fastapi.concurrency import run_in_threadpool

from serve.replies import VideoReply

_LOOK_S = 0.25
_SILENT_S = 15.0
# A client that still listens comes back by itself; one that is gone must not hold its place.
_LONGEST_S = 300.0
_COMPARED = ("status", "step", "progress", "queue_position")


async def video_events(
    look: Callable[[], VideoReply | None], *, pause_s: float = _LOOK_S
) -> AsyncGenerator[str, None]:
    """Yield the video whenever it has moved on, until it has ended or is gone.

    Args:
        look: reads the video as it is now, None once it is deleted; called in a thread.
        pause_s: seconds between two looks.
    """
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
