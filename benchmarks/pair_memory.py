"""Peak memory of a build of pairs: `python -m benchmarks.pair_memory SAMPLES OUT SEED`.

Prints JSON: bytes of the session's processes when idle, and at most while the corpus was built.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path

import ray

from benchmarks.processes import family, resident_bytes
from dreambooth3d.pairs import job
from dreambooth3d.pairs.config import PairsConfig
from dreambooth3d.runtime.session import ray_session

_SETTLE_SECONDS = 3.0
_EVERY_SECONDS = 0.2


def main(arguments: list[str]) -> int:
    """Build in this process, whose children are all of Ray."""
    samples, out, seed = int(arguments[0]), Path(arguments[1]), int(arguments[2])
    config = PairsConfig(samples=samples, seed=seed)
    with ray_session():
        # Every worker has started and has nothing to do.
        rest = ray.remote(_rest)
        ray.get([rest.remote() for _ in range(2 * (os.cpu_count() or 1))])
        time.sleep(_SETTLE_SECONDS)
        idle = resident_bytes(family(os.getpid()))
        peak, ended = [idle], threading.Event()
        watch = threading.Thread(target=_watch, args=(peak, ended))
        watch.start()
        try:
            job.run(config, out, report=lambda line: print(line, file=sys.stderr, flush=True))
        finally:
            ended.set()
            watch.join()
    print(json.dumps({"idle": idle, "peak": max(peak)}))
    return 0


def _rest() -> None:
    """Keep a worker for a moment, so that every core has one."""
    time.sleep(0.2)


def _watch(peak: list[int], ended: threading.Event) -> None:
    while not ended.wait(_EVERY_SECONDS):
        peak[0] = max(peak[0], resident_bytes(family(os.getpid())))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
