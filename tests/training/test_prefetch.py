"""Batches that are made ahead are those that are made in time."""

import threading

import pytest
import torch

from dreambooth3d.errors import InputError
from dreambooth3d.training.loop import fit
from dreambooth3d.training.prefetch import prefetched
from tests.training.test_loop import batch, make_engine, plan


def test_a_training_is_the_same_with_batches_made_ahead() -> None:
    in_time = fit(make_engine(), batch, plan(None))
    with prefetched(batch, 12) as load:
        assert fit(make_engine(), load, plan(None)).losses == in_time.losses


def test_the_next_batch_is_made_while_the_one_at_hand_is_used() -> None:
    made: list[int] = []
    is_made = threading.Event()

    def make(step: int) -> int:
        made.append(step)
        if step == 4:
            is_made.set()
        return step

    with prefetched(make, 5) as load:
        assert load(3) == 3
        assert is_made.wait(10), "step 4 comes without being asked for"
        assert load(4) == 4
    assert made == [3, 4], "nothing is made twice, nor behind the last step"


def test_an_error_comes_at_its_own_step() -> None:
    def make(step: int) -> list[torch.Tensor]:
        if step == 1:
            raise InputError("sample b must be whole, got half")
        return batch(step)

    with prefetched(make, 3) as load:
        assert len(load(0)) == 1
        with pytest.raises(InputError, match="sample b"):
            load(1)
