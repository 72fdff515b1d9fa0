"""Lines from worker processes to the driver's report, without the cluster's own log."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import ray
from ray.util.queue import Empty, Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

_POLL_SECONDS = 0.5


@contextmanager
def relayed(report: Callable[[str], None]) -> Iterator[Queue]:
    """Hold a queue open whose lines are reported as they come; all of them before it closes."""
    # Beside the driver: a node of workers may go, and the training with others goes on.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    # Where its process is killed, lines are lost and no training.
    again = {"max_restarts": -1, "max_task_retries": -1}
    queue = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here, **again})
    is_over = threading.Event()

    def pump() -> None:
        while True:
            try:
                report(queue.get(timeout=_POLL_SECONDS))
            except Empty:
                if is_over.is_set():
                    return

    thread = threading.Thread(target=pump, name="relay", daemon=True)
    thread.start()
    try:
        yield queue
    finally:
        is_over.set()
        thread.join()
        # Ray says of an actor with endless retries that asks itself to end that its task failed.
        queue.shutdown(force=True)
