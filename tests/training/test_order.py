import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreambooth3d.errors import ConfigError
from dreambooth3d.training.order import DataOrder


@given(st.integers(1, 40), st.integers(1, 6), st.sampled_from([1, 2, 3]), st.integers(0, 3))
def test_ranks_together_see_the_batch_of_one_worker(
    num_samples: int, share: int, world_size: int, seed: int
) -> None:
    order = DataOrder(num_samples=num_samples, batch_size=share * world_size, seed=seed)
    for step in range(4):
        whole = order.batch(step)
        parts = [order.batch(step, rank=r, world_size=world_size) for r in range(world_size)]
        assert tuple(draw for part in parts for draw in part) == whole


def test_each_epoch_shows_every_sample_once_in_another_order() -> None:
    order = DataOrder(num_samples=12, batch_size=4, seed=3)
    epochs = [[d.sample for s in range(3 * e, 3 * e + 3) for d in order.batch(s)] for e in (0, 1)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(12))
    assert epochs[0] != epochs[1]


def test_places_never_repeat() -> None:
    order = DataOrder(num_samples=3, batch_size=2, seed=0)
    places = [draw.place for step in range(10) for draw in order.batch(step)]
    assert places == list(range(20))


def test_a_batch_that_cannot_be_shared_out_is_refused() -> None:
    with pytest.raises(ConfigError, match="multiple of the number of workers"):
        DataOrder(num_samples=8, batch_size=3, seed=0).batch(0, world_size=2)
    with pytest.raises(ConfigError, match="num_samples must be at least 1"):
        DataOrder(num_samples=0, batch_size=3, seed=0)
