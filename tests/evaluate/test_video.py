from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from dreambooth3d.errors import ArtifactError, InputError
from dreambooth3d.evaluate.video import Motion, MotionMeter, consistency


def measure(frames: list[NDArray[np.uint8]]) -> Motion:
    meter = MotionMeter()
    for frame in frames:
        meter.add(frame)
    return meter.result()


def texture(shift: int = 0, light: float = 0.0) -> NDArray[np.uint8]:
    noise = gaussian_filter(np.random.default_rng(0).normal(size=(90, 160)), 3)
    grey = np.roll(128 + noise * 300, shift, axis=1) + light
    return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def test_a_still_picture_is_perfectly_steady() -> None:
    found = measure([texture()] * 4)
    assert found.midframe_smoothness == 1
    assert found.temporal_flickering == 1
    assert found.brightness_flicker == 0
    assert found.dynamic_degree_farneback < 1e-3


def test_a_known_shift_is_the_dynamic_degree() -> None:
    found = measure([texture(shift=2 * i) for i in range(4)])
    assert found.dynamic_degree_farneback == pytest.approx(2 / 160, rel=0.15)


def test_even_light_does_not_flicker_and_a_lamp_that_blinks_does() -> None:
    even = measure([texture(light=6 * i) for i in range(5)])
    blinking = measure([texture(light=12 * (i % 2)) for i in range(5)])
    assert even.brightness_flicker == pytest.approx(0, abs=2e-3)
    assert blinking.brightness_flicker == pytest.approx(24 / 255, rel=0.05)
    assert even.midframe_smoothness > blinking.midframe_smoothness


def test_temporal_flickering_is_of_every_pixel_and_channel() -> None:
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (90, 500, 3), dtype=np.uint8) for _ in range(3)]
    steps = [np.abs(b.astype(float) - a).mean() for a, b in pairwise(frames)]
    assert measure(frames).temporal_flickering == pytest.approx(1 - np.mean(steps) / 255, abs=1e-9)
    # Grey sees no change where red becomes a green of the same light.
    red, green = np.zeros((20, 40, 3), np.uint8), np.zeros((20, 40, 3), np.uint8)
    red[..., 0], green[..., 1] = 153, 78
    assert measure([red, green]).temporal_flickering == pytest.approx(1 - (153 + 78) / 3 / 255)


def test_frames_of_two_sizes_are_no_clip() -> None:
    with pytest.raises(ArtifactError, match="must have one size"):
        measure([texture(), texture()[:80]])


def test_consistency_compares_with_the_first_and_the_last_frame() -> None:
    east, north = np.array([1, 0], np.float32), np.array([0, 1], np.float32)
    assert consistency(np.stack([east, east, east])) == 1
    assert consistency(np.stack([east, north, north])) == pytest.approx(0.25)


def test_one_frame_has_no_motion() -> None:
    with pytest.raises(InputError, match="at least 2 frames"):
        measure([texture()])
    assert np.isnan(measure([texture()] * 2).midframe_smoothness)
