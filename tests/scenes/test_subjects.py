from dataclasses import fields, replace
from itertools import product

import numpy as np
import pytest

from dreambooth3d.errors import ConfigError
from dreambooth3d.scenes import (
    CLASSES,
    COLORS,
    FIRST_HELD_OUT_SEED,
    PATTERNS,
    Camera,
    Frame,
    Subject,
    camera_axes,
    is_held_out,
    make_subject,
    point_cloud,
    reference_cameras,
    render_view,
)
from dreambooth3d.scenes.patterns import accent_mask


def view(subject: Subject, azimuth: float, size: int = 64) -> Frame:
    return render_view(subject, Camera(azimuth_deg=azimuth, elevation_deg=15.0), size=size)


def difference(a: Frame, b: Frame) -> float:
    """Mean channel difference over the pixels where either frame shows the subject."""
    gap = np.abs(a.rgb.astype(int) - b.rgb.astype(int)).mean(axis=2)
    return float(gap[a.mask | b.mask].mean())


def test_a_seed_gives_the_same_bytes_every_time() -> None:
    first, second = make_subject(7), make_subject(7)
    assert first == second
    assert view(first, 30.0).rgb.tobytes() == view(second, 30.0).rgb.tobytes()
    assert make_subject(8) != first


def test_pinning_an_attribute_keeps_the_rest() -> None:
    seed = FIRST_HELD_OUT_SEED + 11
    free = make_subject(seed)
    pinned = make_subject(seed, color=next(name for name in COLORS if name != free.color))
    assert pinned.parts == free.parts
    assert (pinned.class_noun, pinned.pattern) == (free.class_noun, free.pattern)
    everything = make_subject(3, class_noun="mug", color="red", pattern="striped")
    assert (everything.class_noun, everything.color) == ("mug", "red")
    assert everything.pattern == "striped"


@pytest.mark.parametrize("class_noun", CLASSES)
def test_sides_of_a_subject_look_different(class_noun: str) -> None:
    for seed in (0, 1):
        subject = make_subject(seed, class_noun=class_noun, pattern="plain")
        front, left, back, right = (view(subject, azimuth) for azimuth in (0, 90, 180, 270))
        for one, other in ((front, back), (left, right), (front, left), (back, left)):
            assert difference(one, other) > 8.0


@pytest.mark.parametrize("class_noun", CLASSES)
def test_a_subject_fills_the_frame_without_touching_its_border(class_noun: str) -> None:
    for seed in range(3):
        subject = make_subject(seed, class_noun=class_noun)
        masks = [view(subject, azimuth).mask for azimuth in range(0, 360, 45)]
        extents = [np.ptp(np.nonzero(mask.any(axis=1))[0]) + 1 for mask in masks]
        assert 0.3 * 64 < np.mean(extents) < 0.85 * 64
        for mask in masks:
            assert mask[1:-1, 1:-1].sum() == mask.sum()


@pytest.mark.parametrize("class_noun", CLASSES)
def test_the_mask_is_where_the_view_differs_from_white(class_noun: str) -> None:
    frame = view(make_subject(2, class_noun=class_noun), 35.0)
    differs = (frame.rgb != 255).any(axis=2)
    assert differs[frame.mask].all()
    padded = np.pad(frame.mask, 1)
    near = padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
    # The lens leaves a trace of the subject's light up to two pixels away.
    clearly = (frame.rgb < 225).any(axis=2)
    assert (clearly & ~frame.mask & ~near).sum() <= 0.02 * frame.mask.sum()


@pytest.mark.parametrize("color", COLORS)
def test_the_main_colour_is_the_most_common_one(color: str) -> None:
    subject = make_subject(4, class_noun="duck", color=color, pattern="plain")
    frame = view(subject, 20.0)
    shade = frame.rgb[frame.mask] / np.maximum(frame.rgb[frame.mask].max(axis=1, keepdims=True), 1)
    main = np.array(subject.paints.main) / max(subject.paints.main)
    assert (np.abs(shade - main).max(axis=1) < 0.1).mean() > 0.5


@pytest.mark.parametrize("pattern", ["striped", "banded", "checkered", "spotted"])
def test_a_pattern_leaves_most_of_the_surface_to_the_main_colour(pattern: str) -> None:
    around, up = np.meshgrid(np.arange(0, 4, 0.01), np.arange(0, 4, 0.01))
    share = accent_mask(pattern, around.ravel(), up.ravel()).mean()
    assert 0.2 < share < 0.36


@pytest.mark.parametrize("class_noun", CLASSES)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_main_colour_shows_from_every_side(class_noun: str, pattern: str) -> None:
    subject = make_subject(1, class_noun=class_noun, pattern=pattern)
    alone = {f.name: (255 * (f.name == "main"),) * 3 for f in fields(subject.paints)
             if isinstance(getattr(subject.paints, f.name), tuple)}  # fmt: skip
    marked = replace(subject, paints=replace(subject.paints, **alone))
    for azimuth in range(0, 360, 45):
        frame = view(marked, azimuth)
        assert (frame.rgb[frame.mask].mean(axis=1) > 100).mean() > 0.18


def test_patterns_can_be_told_apart() -> None:
    frames = [view(make_subject(5, class_noun="mug", pattern=name), 90.0) for name in PATTERNS]
    for index, frame in enumerate(frames):
        assert all(difference(frame, other) > 8.0 for other in frames[:index])


@pytest.mark.parametrize("size", [32, 96, 256])
def test_other_sizes_show_the_same_picture(size: int) -> None:
    subject = make_subject(9, class_noun="car")
    frame = view(subject, 40.0, size)
    assert frame.rgb.shape == (size, size, 3)
    assert frame.mask.mean() == pytest.approx(view(subject, 40.0).mask.mean(), abs=0.02)


def test_zoom_enlarges_the_subject() -> None:
    subject = make_subject(9)
    cameras = [Camera(azimuth_deg=0.0, elevation_deg=10.0, zoom=zoom) for zoom in (0.5, 1.0)]
    small, large = (render_view(subject, camera).mask.sum() for camera in cameras)
    assert large == pytest.approx(4 * small, rel=0.15)


def test_reference_cameras_start_at_the_front_and_are_even() -> None:
    azimuths = [camera.azimuth_deg for camera in reference_cameras(4)]
    assert azimuths == [0.0, 90.0, 180.0, 270.0]


@pytest.mark.parametrize("class_noun", CLASSES)
def test_a_point_cloud_projects_onto_the_mask(class_noun: str) -> None:
    subject = make_subject(1, class_noun=class_noun)
    points = point_cloud(subject, 600)
    assert points.shape == (600, 3)
    assert points.dtype == np.float32
    camera = Camera(azimuth_deg=25.0, elevation_deg=15.0)
    right, up, _ = camera_axes(camera)
    column = ((points @ right + 1.0) * 64).astype(int)
    row = ((1.0 - points @ up) * 64).astype(int)
    padded = np.pad(render_view(subject, camera, size=128).mask, 1)
    hit = padded[1 + row, 1 + column] | padded[row, 1 + column] | padded[2 + row, 1 + column]
    hit |= padded[1 + row, column] | padded[1 + row, 2 + column]
    assert hit.mean() > 0.99


def test_a_point_cloud_follows_its_seed() -> None:
    subject = make_subject(1)
    assert np.array_equal(point_cloud(subject, 50, 3), point_cloud(subject, 50, 3))
    assert not np.array_equal(point_cloud(subject, 50, 3), point_cloud(subject, 50, 4))


@pytest.mark.parametrize("attribute", ["class_noun", "color", "pattern"])
def test_unknown_names_are_explained(attribute: str) -> None:
    with pytest.raises(ConfigError, match=f"{attribute} must be one of .*, got 'nonsense'; pick"):
        replace(make_subject(0), **{attribute: "nonsense"})
    with pytest.raises(ConfigError, match=f"{attribute} must be one of .*, got 'nonsense'; pick"):
        make_subject(0, **{attribute: "nonsense"})
    with pytest.raises(ConfigError, match=f"{attribute} must be one of"):
        make_subject(0, **{attribute: ""})


def test_bad_numbers_are_explained() -> None:
    with pytest.raises(ConfigError, match="seed must not be negative, got -1"):
        make_subject(-1)
    with pytest.raises(ConfigError, match="num_views must be at least 1"):
        reference_cameras(0)
    with pytest.raises(ConfigError, match="size must be between 8 and 1024 pixels, got 4"):
        view(make_subject(0), 0.0, 4)
    with pytest.raises(ConfigError, match="num_points must be at least 1"):
        point_cloud(make_subject(0), 0)
    with pytest.raises(ConfigError, match="zoom must be positive"):
        Camera(azimuth_deg=0.0, elevation_deg=0.0, zoom=0.0)
    with pytest.raises(ConfigError, match="elevation_deg must be between"):
        Camera(azimuth_deg=0.0, elevation_deg=100.0)


def test_training_never_sees_a_held_out_combination() -> None:
    names = list(product(CLASSES, COLORS, PATTERNS))
    kept = [combination for combination in names if is_held_out(*combination)]
    assert len(names) / 12 < len(kept) < len(names) / 10
    assert len({(noun, color) for noun, color, _ in kept}) == len(kept)
    trained = [make_subject(seed) for seed in range(300)]
    assert not any(is_held_out(s.class_noun, s.color, s.pattern) for s in trained)
    unseen = [make_subject(FIRST_HELD_OUT_SEED + seed) for seed in range(300)]
    assert any(is_held_out(s.class_noun, s.color, s.pattern) for s in unseen)
    noun, color, pattern = kept[0]
    pinned = make_subject(3, class_noun=noun, color=color, pattern=pattern)
    assert pinned.pattern == pattern
