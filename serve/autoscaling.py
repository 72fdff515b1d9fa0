"""How many engines there should be, by the length and the age of the job table's queue.

Serve's own measure, requests in flight, says nothing here: no request waits for a clip. Its
controller asks `QueuePolicy` instead, and applies bounds and delays to what it answers.
"""

import logging
import math
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ray.serve.config import AutoscalingConfig, AutoscalingContext, AutoscalingPolicy
from sqlalchemy.exc import SQLAlchemyError

from serve.jobs import JobTable
from serve.settings import ServeSettings, database_in_environment

_logger = logging.getLogger(__name__)
_LOOK_S = 2.0
# A table that cannot be read says nothing about its queue: the engines stay as they are.
_STALE_S = 30.0
_UPSCALE_DELAY_S = 5.0


@dataclass(frozen=True, kw_only=True)
class QueueLoad:
    """Jobs that wait and run; how long the oldest has waited; when that was read (monotonic)."""

    waiting: int
    running: int
    age_s: float
    read_at: float


def desired_engines(load: QueueLoad, *, current: int, jobs_each: int, max_age_s: float) -> int:
    """Engines for a load, without bounds.

    Args:
        load: of the job table.
        current: engines there are or will be.
        jobs_each: jobs that one engine takes at once, waiting or running.
        max_age_s: a job that waits longer asks for one more engine: jobs of different shapes
            share no batch, so that few of them can be many batches.
    """
    wanted = math.ceil((load.waiting + load.running) / jobs_each)
    if load.waiting and load.age_s > max_age_s:
        wanted = max(wanted, current + 1)
    return wanted


class QueuePolicy:
    """Serve's autoscaling policy; reads the table in a thread of its own, never in the controller.

    Args:
        settings: of the application, as `autoscaling_of` gives them.
        read: the load of the table; read from `settings` unless given.
    """

    def __init__(
        self, settings: dict[str, Any], *, read: Callable[[], QueueLoad] | None = None
    ) -> None:
        self._settings = ServeSettings(**settings)
        self.load: QueueLoad | None = None
        read = read or _reader(self._settings.database_url)
        arguments = (weakref.ref(self), read)
        threading.Thread(target=_watch, args=arguments, name="queue-policy", daemon=True).start()

    def __call__(self, context: AutoscalingContext) -> tuple[int, dict[str, Any]]:
        """Answer the controller."""
        load, target = self.load, int(context.target_num_replicas)
        if load is None or time.monotonic() - load.read_at > _STALE_S:
            return target, context.policy_state
        wanted = desired_engines(
            load,
            current=target,
            jobs_each=self._settings.max_batch,
            max_age_s=self._settings.scale_up_age_s,
        )
        return wanted, context.policy_state


def _reader(url: str) -> Callable[[], QueueLoad]:
    """Open the table at the first reading, and again after one that failed."""
    tables: list[JobTable] = []

    def read() -> QueueLoad:
        if not tables:
            tables.append(JobTable(url))
        return read_load(tables[0])

    return read


def _watch(policy: "weakref.ref[QueuePolicy]", read: Callable[[], QueueLoad]) -> None:
    # A deployment that is changed gets a new policy; the thread of the old one ends with it.
    while policy() is not None:
        try:
            load = read()
        except (SQLAlchemyError, OSError):
            _logger.exception("the job table cannot be read; engines stay as many as they are")
        else:
            if (found := policy()) is not None:
                found.load = load
            del found
        time.sleep(_LOOK_S)


def read_load(table: JobTable) -> QueueLoad:
    """Read the load of a job table."""
    waiting, age_s = table.queue_state()
    running = table.counts()["in_progress"]
    return QueueLoad(waiting=waiting, running=running, age_s=age_s, read_at=time.monotonic())


def autoscaling_of(settings: ServeSettings) -> AutoscalingConfig | None:
    """Serve's configuration of the engines; None where their number is fixed."""
    if settings.max_engine_replicas <= settings.engine_replicas:
        return None
    # Serve shows arguments of policies: a password from the environment is read there again.
    hidden = {"database"} if database_in_environment() else set()
    given = settings.model_dump(exclude_defaults=True, exclude=hidden)
    return AutoscalingConfig(
        min_replicas=settings.engine_replicas,
        max_replicas=settings.max_engine_replicas,
        initial_replicas=max(1, settings.engine_replicas),
        upscale_delay_s=_UPSCALE_DELAY_S,
        downscale_delay_s=settings.scale_down_s,
        policy=AutoscalingPolicy(
            policy_function=f"{__name__}:{QueuePolicy.__name__}",
            policy_kwargs={"settings": given},
        ),
    )
