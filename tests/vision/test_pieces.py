"""Pieces, holes and growth of masks."""

import numpy as np
from numpy.typing import NDArray

from dreambooth3d.vision.pieces import grown, holes_of, label_pieces, sums_by_piece


def mask(*rows: str) -> NDArray[np.bool_]:
    return np.array([[c == "#" for c in row] for row in rows])


def test_pieces_touch_at_corners_and_have_areas() -> None:
    labels, areas = label_pieces(mask("..#.", "#..#", "#..."))
    assert areas.tolist() == [8, 2, 2]
    assert labels[0, 2] == labels[1, 3] != labels[1, 0] == labels[2, 0]
    apart, _ = label_pieces(mask("..#.", "#..#", "#..."), connectivity=4)
    assert apart.max() == 3


def test_no_piece_at_all() -> None:
    labels, areas = label_pieces(np.zeros((3, 4), np.bool_))
    assert not labels.any()
    assert areas.tolist() == [12]


def test_a_hole_is_enclosed_also_at_corners_and_a_bay_is_not() -> None:
    ring = mask(".##..", "#..#.", ".##..", "#....", "##.##")
    assert holes_of(ring).tolist() == mask(".....", ".##..", ".....", ".....", ".....").tolist()


def test_a_full_mask_has_no_holes() -> None:
    assert not holes_of(np.ones((4, 4), np.bool_)).any()


def test_sums_go_by_piece() -> None:
    labels, areas = label_pieces(mask("##.#"))
    values = np.array([[1, 2, 4, 8]], dtype=np.uint8)
    assert sums_by_piece(labels, values, len(areas)).tolist() == [4, 3, 8]


def test_growth_is_square_and_stops_at_the_border() -> None:
    assert grown(mask("#....", ".....", "....."), 1).tolist() == (
        mask("##...", "##...", ".....").tolist()
    )
