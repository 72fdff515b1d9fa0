import math

import pytest
import torch
from PIL import Image

from dreambooth3d.personalize.view_choice import (
    choose_held_out,
    choose_views,
    embed_views,
    same_pictures,
)
from dreambooth3d.scenes import Camera, make_subject, render_view


def circle(*degrees: float) -> torch.Tensor:
    turns = torch.tensor([math.radians(d) for d in degrees])
    return torch.stack([turns.cos(), turns.sin()], dim=1)


def test_views_cover_the_circle_whatever_their_order() -> None:
    assert choose_views(circle(0, 10, 90, 100, 180, 190, 270, 280), 4) in (
        (0, 2, 4, 6), (1, 3, 5, 7), (0, 3, 4, 7),
    )  # fmt: skip


def test_the_closed_end_of_a_turntable_is_not_taken_beside_its_start() -> None:
    chosen = choose_views(circle(0, 72, 144, 216, 288, 360), 6)
    assert len(chosen) == 5
    assert not {0, 5} <= set(chosen)


def test_near_duplicates_are_left_out_even_where_views_are_short() -> None:
    assert len(choose_views(circle(0, 1, 2, 90), 4)) == 2
    assert len(choose_views(circle(5, 5, 5), 4)) == 1


def test_real_views_of_an_object_are_apart_and_a_copy_is_not() -> None:
    subject = make_subject(1_000_003, class_noun="train")
    turns = (0, 90, 180, 270, 360)
    views = [
        Image.fromarray(render_view(subject, Camera(azimuth_deg=a, elevation_deg=15), size=64).rgb)
        for a in turns
    ]
    embedded = embed_views(views)
    chosen = choose_views(embedded, 5)
    assert not {0, 4} <= set(chosen)
    assert len(chosen) >= 2
    assert {0, 4} <= set(same_pictures(embedded, embedded[:1]))
    assert same_pictures(embedded, embedded[:0]) == ()


@pytest.mark.parametrize(
    ("captures", "share", "referred", "held_out"),
    [(12, 0.2, (), (3, 9)), (5, 0.5, (), ()), (6, 0.2, (1, 3), (4,)), (6, 0.9, range(6), ()),
     (12, 0.0, (), ())],
)  # fmt: skip
def test_captures_that_judge_are_spread_and_never_referred_to(
    captures: int, share: float, referred: tuple[int, ...], held_out: tuple[int, ...]
) -> None:
    found = choose_held_out(captures, share, referred=referred)
    assert found == held_out
    assert not set(found) & set(referred)
