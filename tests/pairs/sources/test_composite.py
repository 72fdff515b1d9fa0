import numpy as np
import pytest
from PIL import Image

from dreambooth3d.pairs.sources.composite import panel_boxes, split_panels
from dreambooth3d.vision.refusal import RefusedError
from tests.pairs.sources.subjects200k_files import GREEN, composite, two_panels


@pytest.mark.parametrize("padding", [8, 16])
@pytest.mark.parametrize("is_framed", [False, True])
@pytest.mark.parametrize("strip", [GREEN, (0, 0, 0), (255, 255, 255)])
def test_panels_come_out_whole_and_without_strips(
    padding: int, is_framed: bool, strip: tuple[int, int, int]
) -> None:
    # 16 is found by the published side alone.
    side = 512 if padding == 16 else 64
    panels = [panel.resize((side, side)) for panel in two_panels(0)]
    joined = composite(*panels, padding=padding, is_framed=is_framed, strip=strip)
    for cut, panel in zip(split_panels(joined, inset=0), panels, strict=True):
        assert cut.size == (side, side)
        assert (np.asarray(cut) == np.asarray(panel)).all()


def test_an_inset_leaves_out_the_seam() -> None:
    panels = two_panels(0)
    left, right = split_panels(composite(*panels), inset=2)
    assert left.size == right.size == (60, 60)
    assert (np.asarray(right) == np.asarray(panels[1])[2:-2, 2:-2]).all()


@pytest.mark.parametrize(
    ("size", "left", "right"),
    [
        # As published, and what the same panels give with three strips, with four, with none.
        ((1056, 528), (8, 8, 520, 520), (528, 8, 1040, 520)),
        ((1048, 528), (8, 8, 520, 520), (528, 8, 1040, 520)),
        ((1088, 544), (16, 16, 528, 528), (544, 16, 1056, 528)),
        ((1072, 544), (16, 16, 528, 528), (544, 16, 1056, 528)),
        ((2080, 1040), (8, 8, 1032, 1032), (1040, 8, 2064, 1032)),
        ((1024, 512), (0, 0, 512, 512), (512, 0, 1024, 512)),
        ((1040, 512), (0, 0, 512, 512), (528, 0, 1040, 512)),
    ],
)
def test_boxes_of_known_sizes(
    size: tuple[int, int], left: tuple[int, ...], right: tuple[int, ...]
) -> None:
    assert panel_boxes(*size)[:2] == (left, right)


def test_white_panels_on_white_strips_take_the_published_place() -> None:
    white = Image.new("RGB", (64, 64), "white")
    joined = composite(two_panels(0)[0], white, strip=(255, 255, 255))
    left, _ = split_panels(joined, inset=0)
    assert (np.asarray(left) == np.asarray(two_panels(0)[0])).all()


@pytest.mark.parametrize(
    "size", [(528, 528), (512, 1024), (1, 1), (40, 20), (3000, 500), (700, 528), (1200, 400)]
)
def test_one_panel_or_three_are_no_pair(size: tuple[int, int]) -> None:
    with pytest.raises(RefusedError, match="must be two square panels") as caught:
        split_panels(Image.new("RGB", size))
    assert caught.value.reason == "bad_row"
