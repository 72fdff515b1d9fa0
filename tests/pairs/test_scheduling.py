"""Runs of pieces of work: all of them once, in order, smaller towards the end."""

import pytest

from dreambooth3d.pairs.scheduling import guided_tasks


@pytest.mark.parametrize("workers", [1, 2, 7])
@pytest.mark.parametrize("sizes", [[128] * 32, [1, 500, 3, 3, 900], [5], []])
def test_every_piece_is_in_one_run_in_order(sizes: list[int], workers: int) -> None:
    runs = list(guided_tasks(sizes, workers, most=512))
    assert [place for run in runs for place in run] == list(range(len(sizes)))
    assert all(len(run) == 1 or sum(sizes[place] for place in run) <= 512 for run in runs)


def test_runs_become_small_towards_the_end() -> None:
    lengths = [len(run) for run in guided_tasks([128] * 32, 2, most=512)]
    assert lengths == sorted(lengths, reverse=True)
    assert (lengths[0], lengths[-1]) == (4, 1)


def test_slow_pieces_stand_alone() -> None:
    assert [len(run) for run in guided_tasks([128] * 4, 2, most=8)] == [1, 1, 1, 1]


def test_short_pieces_stand_together() -> None:
    lengths = [len(run) for run in guided_tasks([1] * 20, 2, most=32, least=8)]
    assert lengths == [8, 8, 4]
