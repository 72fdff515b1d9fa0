"""Cancel under a running engine: how many steps a clip still takes, and who gets its slot."""

import time
from collections.abc import Mapping, Sequence

from benchmarks.commands import scratch_folder
from benchmarks.processes import wait_until
from dreambooth3d.model.backbone import read_card
from serve import orders
from serve.engine import Engine
from serve.jobs import JobTable
from serve.records import Job, NewJob
from serve.schema import parse_create
from serve.settings import ServeSettings

_STEPS, _CANCEL_AFTER = 60, 3
_PATIENCE_S = 120.0


class _Watched(JobTable):
    """A job table that notes when each step of each job ended."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.ended: list[tuple[float, Sequence[str]]] = []

    def advance(
        self,
        token: str,
        ids: Sequence[str],
        *,
        step: int,
        steps: int,
        stage_seconds: Mapping[str, float],
        lease_s: float,
    ) -> frozenset[str]:
        self.ended.append((time.monotonic(), ids))
        return super().advance(
            token, ids, step=step, steps=steps, stage_seconds=stage_seconds, lease_s=lease_s
        )

    def num_steps(self, job: Job, *, since: float = 0.0) -> int:
        """Steps of a job that ended after a moment."""
        return sum(at > since and job.id in ids for at, ids in self.ended)


def steps_after_cancel(seed: int) -> float:
    """Steps that end with a canceled clip in the batch after the answer to its cancel.

    Raises:
        ChildProcessError: the slot is not taken by the next job, or that one fails.
    """
    with scratch_folder() as runs:
        settings = ServeSettings(backbone="tiny", runs=str(runs), max_batch=1)
        table = _Watched(settings.database_url)
        engine = Engine(settings, jobs=table)
        engine.start()
        try:
            long = _submit(table, settings, seed, _STEPS)
            waiting = _submit(table, settings, seed + 1, 4)
            if not wait_until(lambda: table.num_steps(long) >= _CANCEL_AFTER, seconds=_PATIENCE_S):
                raise ChildProcessError("the engine took no step")
            table.cancel(long.id)
            canceled_at = time.monotonic()
            if not wait_until(lambda: _has_completed(table, waiting), seconds=_PATIENCE_S):
                raise ChildProcessError("the job behind a canceled one must get its slot")
            return float(table.num_steps(long, since=canceled_at))
        finally:
            engine.stop(drain_s=10)


def _has_completed(table: JobTable, job: Job) -> bool:
    found = table.get(job.id)
    return found is not None and found.status == "completed"


def _submit(table: JobTable, settings: ServeSettings, seed: int, steps: int) -> Job:
    rules = orders.ClipRules.of(read_card(settings.backbone), settings)
    asked = parse_create(
        {"prompt": "a red car", "seed": seed, "num_frames": 5, "num_inference_steps": steps}
    )
    order = orders.resolve(asked, rules, None)
    new = NewJob(
        request=order.to_json(),
        request_hash=asked.content_hash,
        batch_key=orders.batch_key(order, None),
        num_tokens=rules.num_tokens(order.num_frames, order.width, order.height),
        steps=order.num_steps,
    )
    return table.submit(new, max_queued=10)[0]
