"""What Prometheus can read, under `ray_dreambooth3d_*` on the metrics port of each Ray node.

Measured where it happens, in the engines; the state of the queue is also at `/metrics` of the
ingress, for operators who do not scrape Ray. Outside of Ray nothing is exported.
"""

from ray.util.metrics import Counter, Gauge, Histogram

_PREFIX = "dreambooth3d"
_COUNTS = [1, 2, 4, 8, 16, 32, 64]
_SECONDS = [0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100]


class Meters:
    """The meters of one engine."""

    def __init__(self) -> None:
        self._batch_size = _histogram("batch_size", "Clips of a batch.", _COUNTS)
        self._batch_adapters = _histogram(
            "batch_adapters", "Distinct adapters of a batch.", _COUNTS
        )
        self._step = _histogram("step_seconds", "Denoising steps.", _SECONDS)
        self._cancel = _histogram(
            "cancel_seconds", "From a cancel to the row's end in its batch.", _SECONDS
        )
        self._looks = Counter(
            f"{_PREFIX}_adapter_cache_looks",
            description="Adapters asked for, by whether they were loaded already.",
            tag_keys=("is_hit",),
        )
        self._queue_jobs = Gauge(f"{_PREFIX}_queue_jobs", description="Jobs that wait.")
        self._queue_age = Gauge(
            f"{_PREFIX}_queue_age_seconds", description="How long the oldest has waited."
        )

    def batch(self, *, size: int, num_adapters: int) -> None:
        """Note a batch that begins."""
        self._batch_size.observe(size)
        self._batch_adapters.observe(num_adapters)

    def step(self, seconds: float) -> None:
        """Note a denoising step that ended."""
        self._step.observe(seconds)

    def canceled(self, seconds: float) -> None:
        """Note a canceled row that left its batch."""
        self._cancel.observe(max(0.0, seconds))

    def look(self, is_hit: bool) -> None:
        """Note that an adapter was asked for."""
        self._looks.inc(tags={"is_hit": str(is_hit).lower()})

    def queue(self, *, num_jobs: int, age_s: float) -> None:
        """Note the state of the queue."""
        self._queue_jobs.set(num_jobs)
        self._queue_age.set(age_s)


def queue_page(counts: dict[str, int], age_s: float) -> str:
    """The state of the job table in Prometheus' text format."""
    jobs = "".join(
        f'{_PREFIX}_jobs{{status="{status}"}} {count}\n' for status, count in counts.items()
    )
    return (
        f"# HELP {_PREFIX}_jobs Jobs by status.\n# TYPE {_PREFIX}_jobs gauge\n{jobs}"
        f"# HELP {_PREFIX}_queue_age_seconds How long the oldest queued job has waited.\n"
        f"# TYPE {_PREFIX}_queue_age_seconds gauge\n{_PREFIX}_queue_age_seconds {age_s:.3f}\n"
    )


def _histogram(name: str, description: str, boundaries: list[float] | list[int]) -> Histogram:
    return Histogram(
        f"{_PREFIX}_{name}", description=description, boundaries=[float(b) for b in boundaries]
    )
