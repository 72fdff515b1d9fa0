"""Good pictures pass the default rules, each kind of useless one is refused for its own reason."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter

from dreambooth3d.errors import ConfigError
from dreambooth3d.scenes import (
    Camera,
    make_scene,
    make_subject,
    render_scene,
    render_view,
)
from dreambooth3d.vision.backdrop import cut_from_backdrop
from dreambooth3d.vision.quality import (
    ObjectMeasures,
    PictureMeasures,
    QualityRules,
    measure_object,
    measure_picture,
    require_object,
    require_picture,
    require_size,
)
from dreambooth3d.vision.refusal import RefusedError

RULES = QualityRules()
WHOLE = QualityRules(max_cut_share=0.05)
GOOD = PictureMeasures(
    sharpness=500.0, dark_share=0.0, bright_share=0.0, brightness=120.0, colour_spread=30.0
)


def refusal(call: Callable[[], None]) -> str:
    with pytest.raises(RefusedError, match=r"must be at (least|most) .*, got ") as caught:
        call()
    return caught.value.reason


def rectangle(height: int, width: int, rows: slice, columns: slice) -> NDArray[np.bool_]:
    mask = np.zeros((height, width), np.bool_)
    mask[rows, columns] = True
    return mask


def render(seed: int) -> tuple[Image.Image, NDArray[np.bool_]]:
    camera = Camera(azimuth_deg=seed * 37 % 360, elevation_deg=15.0)
    frame = render_view(make_subject(seed), camera, size=64)
    return Image.fromarray(frame.rgb), frame.mask


def blurred(image: Image.Image, share: float) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(share * max(image.size)))


def refusal_or_none(
    image: Image.Image, measures: PictureMeasures, mask: NDArray[np.bool_], rules: QualityRules
) -> str | None:
    """Hold a picture against all rules; return why it is refused."""
    try:
        require_size(*image.size, rules)
        require_picture(measures, rules)
        require_object(measure_object(mask), rules)
    except RefusedError as error:
        return error.reason
    return None


@pytest.mark.parametrize("seed", range(0, 60, 5))
def test_embedded_renders_pass(seed: int) -> None:
    image, mask = render(seed)
    assert refusal_or_none(image, measure_picture(image, mask), mask, WHOLE) is None
    scene = make_scene(make_subject(seed), seed, num_frames=1)
    frames, masks = render_scene(scene, size=64)
    frame = Image.fromarray(frames[0])
    assert refusal_or_none(frame, measure_picture(frame), masks[0], RULES) is None


def test_real_photos_pass_and_blurred_dark_and_overexposed_ones_do_not(shared: Path) -> None:
    photos = sorted((shared / "photos").glob("*/*.jpg"))
    assert len(photos) == 27
    for path in photos:
        image = Image.open(path).convert("RGB")
        middle = rectangle(image.height, image.width, slice(200, 500), slice(200, 500))
        assert refusal_or_none(image, measure_picture(image), middle, RULES) is None
    for path in photos[::5]:
        image = Image.open(path).convert("RGB")
        made = {
            "blurred": blurred(image, 0.01),
            "too_dark": ImageEnhance.Brightness(image).enhance(0.06),
            "too_bright": ImageEnhance.Brightness(image).enhance(40.0),
        }
        for reason, bad in made.items():
            assert refusal(lambda bad=bad: require_picture(measure_picture(bad), RULES)) == reason


def test_real_references_pass(shared: Path) -> None:
    for path in sorted((shared / "subjects").glob("*/references/*.png"))[::3]:
        image = Image.open(path).convert("RGB")
        mask = cut_from_backdrop(image) > 0.5
        assert refusal_or_none(image, measure_picture(image, mask), mask, WHOLE) is None
        soft = measure_picture(blurred(image, 0.01), mask)
        assert refusal(lambda soft=soft: require_picture(soft, RULES)) == "blurred"


def test_a_render_out_of_focus_is_refused() -> None:
    image, mask = render(4)
    measures = measure_picture(blurred(image, 0.05), mask)
    assert refusal(lambda: require_picture(measures, RULES)) == "blurred"


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (Image.new("RGB", (64, 64), (0, 0, 0)), "too_dark"),
        (Image.new("RGB", (64, 64), (255, 255, 255)), "too_bright"),
        (Image.new("RGB", (64, 64), (90, 120, 130)), "flat_colours"),
    ],
)
def test_pictures_of_nothing(image: Image.Image, reason: str) -> None:
    assert refusal(lambda: require_picture(measure_picture(image), RULES)) == reason


@pytest.mark.parametrize(
    ("width", "height", "reason"),
    [(63, 63, "too_small"), (64, 193, "bad_aspect"), (193, 64, "bad_aspect"), (0, 9, "too_small")],
)
def test_sizes(width: int, height: int, reason: str) -> None:
    assert refusal(lambda: require_size(width, height, RULES)) == reason


@pytest.mark.parametrize(("width", "height"), [(64, 192), (192, 64), (64, 64)])
def test_sizes_at_the_limit_pass_and_a_pixel_beyond_do_not(width: int, height: int) -> None:
    page = Image.new("RGB", (width, height))
    middle = rectangle(height, width, slice(10, 54), slice(10, 54))
    assert refusal_or_none(page, GOOD, middle, RULES) is None
    short, long = sorted((width, height))
    assert refusal(lambda: require_size(short - 1, long, RULES)) == "too_small"
    assert refusal(lambda: require_size(64, 193, RULES)) == "bad_aspect"


@pytest.mark.parametrize(
    ("reason", "mask"),
    [
        ("no_object", np.zeros((100, 100), np.bool_)),
        ("object_too_small", rectangle(400, 400, slice(90, 110), slice(90, 110))),
        ("object_too_small", rectangle(400, 400, slice(90, 91), slice(90, 190))),
        ("object_too_large", np.ones((100, 100), np.bool_)),
        ("object_cut", rectangle(100, 100, slice(50, 100), slice(30, 70))),
        ("object_in_pieces", np.kron(np.diag([1, 0, 1, 0, 1, 0, 1, 0]), np.ones((9, 9))) > 0),
    ],
)
def test_objects_that_are_no_good(reason: str, mask: NDArray[np.bool_]) -> None:
    measures = measure_object(mask)
    assert refusal(lambda: require_object(measures, QualityRules(max_cut_share=0.5))) == reason


def test_a_thin_ring_is_more_hole_than_object() -> None:
    ring = np.zeros((90, 90), np.bool_)
    ring[10:80, 10:80] = True
    ring[14:76, 14:76] = False
    measures = measure_object(ring)
    assert measures.hole_share == pytest.approx(62**2 / 70**2)
    assert refusal(lambda: require_object(measures, RULES)) == "object_in_pieces"


def test_object_measures_are_what_they_say() -> None:
    mask = rectangle(100, 200, slice(80, 100), slice(10, 60))
    mask[90:95, 20:30] = False
    mask[10:12, 150:152] = True
    assert measure_object(mask) == ObjectMeasures(
        long_side=142, coverage=954 / 20_000, num_pieces=1, hole_share=50 / 1004, cut_share=50 / 142
    )


def test_light_is_measured_inside_the_mask() -> None:
    page = np.full((60, 60, 3), 255, np.uint8)
    page[20:40, 20:40] = 100
    measures = measure_picture(
        Image.fromarray(page), rectangle(60, 60, slice(20, 40), slice(20, 40))
    )
    assert (measures.bright_share, measures.brightness) == (0, 100)
    # The outline counts for the focus.
    assert measures.sharpness > 1000
    assert measure_picture(Image.fromarray(page)).bright_share == pytest.approx(8 / 9)


def test_sharpness_is_the_variance_of_a_laplacian() -> None:
    gray = np.random.default_rng(0).integers(0, 256, (40, 50)).astype(np.float64)
    padded = np.pad(gray, 1, mode="reflect")
    laplacian = (
        padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:] - 4 * gray
    )
    image = Image.fromarray(np.repeat(gray.astype(np.uint8)[..., None], 3, axis=2))
    assert measure_picture(image).sharpness == pytest.approx(laplacian.var(), rel=1e-6)


def test_sharpness_does_not_depend_on_the_size_of_large_pictures() -> None:
    small = np.random.default_rng(1).integers(0, 256, (128, 256, 3), dtype=np.uint8)
    large = np.repeat(np.repeat(small, 4, axis=0), 4, axis=1)
    assert measure_picture(Image.fromarray(large)) == measure_picture(Image.fromarray(small))


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("min_side", 0),
        ("max_aspect", 0.5),
        ("min_sharpness", -1.0),
        ("max_dark_share", 1.5),
        ("max_pieces", 0),
        ("min_coverage", 0.95),
        ("max_hole_share", math.nan),
    ],
)
def test_rules_are_checked(setting: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{setting} must be"):
        QualityRules(**{setting: value})  # type: ignore[arg-type]


def test_what_is_not_a_number_passes_no_gate() -> None:
    measures = PictureMeasures(
        sharpness=math.nan, dark_share=0.0, bright_share=0.0, brightness=9.0, colour_spread=9.0
    )
    assert refusal(lambda: require_picture(measures, RULES)) == "blurred"
