"""Each way of cutting out: what it takes, what it refuses, and that it is always the same."""

import hashlib
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dreambooth3d.errors import ConfigError
from dreambooth3d.vision.backdrop import cut_from_backdrop, has_plain_backdrop
from dreambooth3d.vision.grabcut import cut_by_grabcut
from dreambooth3d.vision.refusal import RefusedError
from dreambooth3d.vision.segment import SegmenterName, build_segmenter, cut_by_alpha, has_alpha
from tests.vision.pictures import background, drawn_photo, ellipse, overlap

ROOT = Path(__file__).resolve().parents[2]
FREE_NAMES: tuple[SegmenterName, ...] = ("auto", "alpha", "plain", "grabcut")


def with_alpha() -> Image.Image:
    image, mask = drawn_photo()
    image.putalpha(Image.fromarray((mask * 200).astype(np.uint8)))
    return image


def refusal(name: SegmenterName, image: Image.Image) -> tuple[str, str]:
    """Return why a picture is refused, and the sentence."""
    with pytest.raises(RefusedError) as caught:
        build_segmenter(name)(image)
    return caught.value.reason, str(caught.value)


@pytest.mark.parametrize("name", FREE_NAMES)
def test_alpha_is_kept_whatever_the_choice(name: SegmenterName) -> None:
    alpha = build_segmenter(name)(with_alpha())
    assert alpha.dtype == np.float32
    np.testing.assert_array_equal(alpha, drawn_photo()[1] * np.float32(200 / 255))


def test_an_alpha_channel_that_says_nothing_is_not_one() -> None:
    image, mask = drawn_photo()
    image.putalpha(255)
    assert not has_alpha(image)
    assert overlap(build_segmenter("auto")(image), mask) > 0.9
    with pytest.raises(RefusedError, match="transparent background, got none"):
        cut_by_alpha(image)


@pytest.mark.parametrize("name", FREE_NAMES)
def test_only_transparency_is_no_object(name: SegmenterName) -> None:
    reason, sentence = refusal(name, Image.new("RGBA", (30, 30), (200, 10, 10, 0)))
    assert reason == "no_object"
    assert "got only transparency" in sentence


def test_unknown_names_and_needless_weights(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must be one of auto, alpha, plain, grabcut, birefnet"):
        build_segmenter("magic")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="weights must come with birefnet"):
        build_segmenter("grabcut", weights=tmp_path)


@pytest.mark.parametrize("name", FREE_NAMES)
def test_segmenters_can_be_sent_to_workers(name: SegmenterName) -> None:
    image = with_alpha()
    copy = pickle.loads(pickle.dumps(build_segmenter(name)))  # noqa: S301
    np.testing.assert_array_equal(copy(image), build_segmenter(name)(image))


@pytest.mark.parametrize("size", [(300, 240), (200, 330), (90, 80)])
def test_grabcut_finds_a_toy_in_the_grass(size: tuple[int, int]) -> None:
    image, mask = drawn_photo(size)
    alpha = cut_by_grabcut(image)
    assert alpha.shape == mask.shape
    assert alpha.dtype == np.float32
    assert alpha.min() == 0
    assert alpha.max() == 1
    assert overlap(alpha, mask) > 0.9


def test_grabcut_finds_it_beside_the_middle() -> None:
    image, mask = drawn_photo(seed=3, centre=(0.7, 0.55))
    assert overlap(cut_by_grabcut(image), mask) > 0.9


@pytest.mark.parametrize(
    "page",
    [
        np.full((200, 260, 3), 140, np.uint8),
        background((260, 200), 5, (90, 130, 80)),
        np.random.default_rng(0).integers(0, 256, (200, 260, 3), dtype=np.uint8),
        np.repeat(np.linspace(0, 255, 200).astype(np.uint8)[:, None, None], 260, 1).repeat(3, 2),
    ],
    ids=["one colour", "grass", "noise", "a gradient"],
)
def test_grabcut_refuses_where_nothing_stands_out(page: np.ndarray) -> None:
    reason, sentence = refusal("grabcut", Image.fromarray(page))
    assert reason in ("no_object", "uncertain_cut")
    assert sentence.startswith("photo must show")


def test_a_plain_backdrop_needs_no_guessing() -> None:
    mask = ellipse((200, 150), (0.3, 0.5), (0.2, 0.3))
    page = np.full((150, 200, 3), (240, 244, 250), np.uint8)
    # Almost the backdrop's own colour inside: enclosed, so part of the object.
    page[mask] = (200, 40, 90)
    page[ellipse((200, 150), (0.3, 0.5), (0.1, 0.15))] = (241, 243, 250)
    image = Image.fromarray(page)
    assert has_plain_backdrop(image)
    alpha = cut_from_backdrop(image)
    assert overlap(alpha, mask) > 0.97
    np.testing.assert_array_equal(build_segmenter("auto")(image), alpha)


def test_a_photo_in_a_white_frame_has_no_plain_backdrop() -> None:
    photo, mask = drawn_photo()
    framed = Image.new("RGB", (photo.width + 40, photo.height + 40), "white")
    framed.paste(photo, (20, 20))
    assert not has_plain_backdrop(framed)
    assert overlap(build_segmenter("auto")(framed), np.pad(mask, 20)) > 0.85


def test_plain_refuses_photos_and_empty_pages() -> None:
    for image in (drawn_photo()[0], Image.new("RGB", (40, 40), "white")):
        reason, sentence = refusal("plain", image)
        assert reason == "no_object"
        assert "backdrop of one colour" in sentence


def test_the_same_picture_gives_the_same_bytes_in_every_process() -> None:
    here = hashlib.sha256(cut_by_grabcut(drawn_photo()[0]).tobytes()).hexdigest()
    code = (
        "import hashlib, random, numpy, cv2\n"
        "random.seed(); numpy.random.seed(None); cv2.setRNGSeed(99); cv2.setNumThreads(3)\n"
        "from tests.vision.pictures import drawn_photo\n"
        "from dreambooth3d.vision.grabcut import cut_by_grabcut\n"
        "print(hashlib.sha256(cut_by_grabcut(drawn_photo()[0]).tobytes()).hexdigest())\n"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "2", "PYTHONHASHSEED": "7"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [here]


def test_choosing_loads_no_library_that_is_not_used() -> None:
    code = (
        "import sys\n"
        "from dreambooth3d.vision.segment import build_segmenter\n"
        "build_segmenter('alpha'); build_segmenter('auto')\n"
        "print(sorted({'torch', 'cv2', 'scipy', 'onnxruntime'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


# Shares of the picture that the object covers, where colours and shapes agree on it.
REAL = {
    "backpack_dog/002": (0.24, 0.31),
    "bear_plushie/003": (0.25, 0.33),
    "can/002": (0.06, 0.10),
    "shiny_sneaker/004": (0.06, 0.08),
}


@pytest.mark.parametrize("name", sorted(REAL))
def test_objects_of_real_photos_are_cut_out(shared: Path, name: str) -> None:
    alpha = cut_by_grabcut(Image.open(shared / "photos" / f"{name}.jpg"))
    low, high = REAL[name]
    assert low < (alpha > 0.5).mean() < high
    border = np.concatenate([alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]])
    assert border.max() == 0
    is_soft = (alpha > 0.02) & (alpha < 0.98)
    assert 0 < is_soft.mean() < 0.03


# Wheels in their shadow, a lid before gray and a glass beside it, a bear before bricks.
@pytest.mark.parametrize("name", ["rc_car/001", "rc_car/003", "can/005", "bear_plushie/004"])
def test_photos_whose_object_cannot_be_told_apart_are_refused(shared: Path, name: str) -> None:
    reason, sentence = refusal("grabcut", Image.open(shared / "photos" / f"{name}.jpg"))
    assert reason == "uncertain_cut"
    assert "take it on a plain ground, give its mask or alpha, or choose birefnet" in sentence
