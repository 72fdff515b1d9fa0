import time

import numpy as np
import pytest

from dreambooth3d.errors import ConfigError
from dreambooth3d.scenes import (
    BACKGROUNDS,
    MOTIONS,
    describe,
    make_scene,
    make_subject,
    render_scene,
    render_view,
    scene_poses,
)
from dreambooth3d.scenes.backgrounds import VARIANTS

MOVING = tuple(motion for motion in MOTIONS if motion != "still")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def test_a_scene_renders_to_the_same_bytes_every_time() -> None:
    clips = [render_scene(make_scene(make_subject(3), 5, num_frames=4)) for _ in range(2)]
    assert clips[0][0].tobytes() == clips[1][0].tobytes()
    assert clips[0][1].tobytes() == clips[1][1].tobytes()


@pytest.mark.parametrize("num_frames", [1, 2, 17])
def test_a_clip_has_its_shapes_and_types(num_frames: int) -> None:
    clip, masks = render_scene(make_scene(make_subject(3), 5, num_frames=num_frames), size=32)
    assert (clip.shape, clip.dtype) == ((num_frames, 32, 32, 3), np.uint8)
    assert (masks.shape, masks.dtype) == ((num_frames, 32, 32), np.bool_)


@pytest.mark.parametrize("motion", MOVING)
@pytest.mark.parametrize("num_frames", [2, 9, 33])
def test_every_motion_moves_the_subject(motion: str, num_frames: int) -> None:
    scene = make_scene(make_subject(6), 1, num_frames=num_frames, motion=motion)
    clip, masks = render_scene(scene)
    change = np.abs(clip[-1].astype(int) - clip[0].astype(int)).mean(axis=2)
    assert change[masks[0] | masks[-1]].mean() > 10.0
    steps = np.abs(np.diff(clip.astype(int), axis=0)).mean(axis=(1, 2, 3))
    assert (steps > 0.2).all()


def test_still_does_not_move() -> None:
    clip, _ = render_scene(make_scene(make_subject(6), 1, motion="still"))
    assert (clip == clip[0]).all()


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_only_an_orbit_moves_the_background(background: str) -> None:
    for motion in ("camera orbit", "turntable left"):
        scene = make_scene(make_subject(6), 1, num_frames=2, background=background, motion=motion)
        clip, _ = render_scene(scene)
        change = np.abs(clip[1, :12].astype(int) - clip[0, :12].astype(int)).max()
        assert bool(change > 8) == (motion == "camera orbit")


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_an_orbit_shows_on_every_background(background: str) -> None:
    subject, changes = make_subject(6), []
    for seed in range(0, VARIANTS, 4):
        scene = make_scene(
            subject, seed, num_frames=5, background=background, motion="camera orbit"
        )
        clip, masks = render_scene(scene)
        behind = ~(masks[1:] | masks[:-1])
        changes.append(np.abs(np.diff(clip.astype(int), axis=0)).mean(axis=-1)[behind].mean())
    # Grey levels a frame; else nobody could tell an orbit from a turntable.
    assert min(changes) > 3.0


@pytest.mark.parametrize(("direction", "sign"), [("left", -1), ("right", 1)])
def test_slides_go_where_they_say(direction: str, sign: int) -> None:
    scene = make_scene(make_subject(6), 1, num_frames=3, motion=f"slide {direction}")
    _, masks = render_scene(scene)
    centers = [np.nonzero(mask)[1].mean() for mask in masks]
    assert sign * (centers[2] - centers[0]) > 10.0


@pytest.mark.parametrize(("direction", "sign"), [("left", 1), ("right", -1)])
def test_turntables_turn_where_they_say(direction: str, sign: int) -> None:
    # A front that turns to the image's left is the same as a camera that moves to the right.
    poses = scene_poses(make_scene(make_subject(6), 1, motion=f"turntable {direction}"))
    azimuths = np.unwrap([pose.camera.azimuth_deg for pose in poses], period=360.0)
    assert 90.0 <= sign * (azimuths[-1] - azimuths[0]) <= 180.0


def test_a_single_frame_is_still() -> None:
    assert make_scene(make_subject(0), 0, num_frames=1, motion="slide left").motion == "still"


def test_start_views_cover_the_circle_and_favour_the_front() -> None:
    azimuths = np.array([make_scene(make_subject(0), seed).azimuth_deg for seed in range(400)])
    counts, _ = np.histogram(azimuths, bins=8, range=(0.0, 360.0))
    assert counts.min() > 10
    assert ((azimuths < 90.0) | (azimuths > 270.0)).mean() > 0.65


def test_backgrounds_look_different() -> None:
    subject = make_subject(2)
    frames = [
        render_scene(make_scene(subject, 0, num_frames=1, background=name))[0][0].astype(int)
        for name in BACKGROUNDS
    ]
    for index, frame in enumerate(frames):
        assert all(np.abs(frame - other).mean() > 8.0 for other in frames[:index])


def test_the_mask_holds_the_subject_as_seen_on_white() -> None:
    scene = make_scene(make_subject(12), 3, num_frames=1)
    _, masks = render_scene(scene)
    camera = scene_poses(scene)[0].camera
    alone = render_view(scene.subject, camera).mask
    assert masks[0].sum() == pytest.approx(alone.sum(), rel=0.05)


def test_captions_name_what_is_there() -> None:
    for seed in range(60):
        scene = make_scene(make_subject(seed), seed)
        subject, caption = scene.subject, describe(scene, rng=rng(seed))
        assert all(word in caption for word in (subject.color, subject.class_noun))
        assert scene.background in caption
        assert subject.pattern in caption or subject.pattern == "plain"
        direction = scene.motion.rpartition(" ")[2]
        assert direction in caption or scene.motion in ("still", "camera orbit")


def test_captions_without_names_leave_colour_and_pattern_out() -> None:
    for seed in range(60):
        scene = make_scene(make_subject(seed), seed, num_frames=1 + seed % 2 * 4)
        caption = describe(scene, rng=rng(seed), is_named=False)
        assert scene.subject.class_noun in caption
        assert scene.background in caption
        assert scene.subject.color not in caption.split()
        assert scene.subject.pattern not in caption.split()


def test_captions_come_in_paraphrases() -> None:
    scene, photo = (make_scene(make_subject(1), 1, num_frames=frames) for frames in (17, 1))
    videos = {describe(scene, rng=rng(seed)) for seed in range(80)}
    photos = {describe(photo, rng=rng(seed)) for seed in range(80)}
    assert len(videos) > 8
    assert len(photos) >= 4
    assert any(text.startswith("a video of a") for text in videos)
    assert any(text.startswith("a photo of a") for text in photos)
    assert not any("video" in text for text in photos)


def test_unknown_names_are_explained() -> None:
    subject = make_subject(0)
    with pytest.raises(ConfigError, match=r"background must be one of .*, got 'on mars'; pick"):
        make_scene(subject, 0, background="on mars")
    with pytest.raises(ConfigError, match=r"motion must be one of .*, got 'jump'; pick"):
        make_scene(subject, 0, motion="jump")
    with pytest.raises(ConfigError, match="num_frames must be at least 1, got 0"):
        make_scene(subject, 0, num_frames=0)


@pytest.mark.slow
def test_rendering_is_fast_enough_to_feed_training() -> None:
    scenes = [make_scene(make_subject(seed), seed) for seed in range(20)]
    start = time.perf_counter()
    for scene in scenes:
        render_scene(scene)
    assert 20 * 17 / (time.perf_counter() - start) >= 60.0
