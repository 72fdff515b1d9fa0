"""How much work a Ray task gets: much at first, little at the end, so that all end together.

Guided self-scheduling (Polychronopoulos and Kuck 1987). Between two tasks a worker waits for the
driver, some hundredths of a second; what a task has finished is kept on disk, so a long one that is
lost costs no more than a short one.
"""

from collections.abc import Iterator, Sequence

# Of what is left for each worker, it takes this share at a time: all of it would do where pieces
# cost what their sizes say, and some are slower.
_SHARE = 0.8


def guided_tasks(
    sizes: Sequence[int], workers: int, *, most: int, least: int = 0
) -> Iterator[range]:
    """Divide pieces of work into runs, one a task.

    Args:
        sizes: of the pieces, in their order.
        workers: that share them.
        most: size of a run of several pieces.
        least: size that a run has where there is that much: for pieces shorter than the wait.
    """
    left, first = sum(sizes), 0
    while first < len(sizes):
        wanted = min(most, max(least, _SHARE * left / workers))
        last, size = first + 1, sizes[first]
        while last < len(sizes) and size + sizes[last] <= wanted:
            size += sizes[last]
            last += 1
        yield range(first, last)
        left, first = left - size, last
