"""Photos with a background become views on white; nothing is kept silently as it was."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from dreambooth3d.errors import InputError
from dreambooth3d.personalize.preparation import cut_views


def photo(left: int, size: tuple[int, int] = (120, 90)) -> Image.Image:
    picture = Image.new("RGB", size, (60, 110, 180))
    ImageDraw.Draw(picture).ellipse((left, 25, left + 40, 65), fill=(220, 40, 30))
    return picture


def test_the_object_is_alone_whole_and_in_the_middle() -> None:
    photos = [photo(20), photo(60)]
    views = cut_views(photos, "auto").views
    assert list(views) == [0, 1]
    assert photos[0].size == (120, 90)
    for view in views.values():
        assert view.width == view.height == 120
        pixels = np.asarray(view).astype(int)
        assert (pixels[[0, -1], :] > 250).all()
        rows, columns = np.nonzero((pixels[..., 0] > 150) & (pixels[..., 2] < 90))
        assert abs((columns.min() + columns.max()) / 2 - 60) < 4
        assert abs((rows.min() + rows.max()) / 2 - 60) < 4


def test_photos_without_an_object_are_left_out_and_if_all_are_it_is_said() -> None:
    bare = Image.new("RGB", (96, 96), (10, 90, 30))
    cut = cut_views([bare, photo(30)], "plain")
    assert (list(cut.views), list(cut.refused)) == ([1], [0])
    assert cut.refused[0]
    with pytest.raises(InputError, match="segmentation=none"):
        cut_views([bare], "plain")
    assert cut_views([bare], "none").views == {0: bare}


def test_of_many_photos_some_are_cut_all_around() -> None:
    views = cut_views([photo(20 + k) for k in range(48)], "plain").views
    assert list(views) == list(range(0, 48, 2))
