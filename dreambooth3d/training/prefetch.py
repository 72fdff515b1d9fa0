"""The next batch is made while the one at hand is trained on."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Batch = TypeVar("Batch")


@contextmanager
def prefetched(
    load_batch: Callable[[int], Batch], num_steps: int
) -> Iterator[Callable[[int], Batch]]:
    """Yield what gives the batches of `load_batch`, made one step ahead in a thread.

    Args:
        load_batch: a pure function of the step, so it does not matter when it is called. What it
            raises is raised at its own step.
        num_steps: of the training; nothing is loaded behind the last one.
    """
    coming: dict[int, Future[Batch]] = {}
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:

        def load(step: int) -> Batch:
            batch = (coming.pop(step, None) or pool.submit(load_batch, step)).result()
            if step + 1 < num_steps:
                coming[step + 1] = pool.submit(load_batch, step + 1)
            return batch

        yield load
