"""Captions: a small grammar over colour, pattern, class, background and motion."""

from __future__ import annotations

import numpy as np

from dreambooth3d.scenes.scene import Scene

__all__ = ["describe"]

_MOTION_PHRASES: dict[str, tuple[str, ...]] = {
    "still": ("standing still", "not moving", "staying still"),
    "turntable left": ("turning to the left", "rotating to the left", "spinning left"),
    "turntable right": ("turning to the right", "rotating to the right", "spinning right"),
    "slide left": ("sliding to the left", "moving to the left", "gliding left"),
    "slide right": ("sliding to the right", "moving to the right", "gliding right"),
    "camera orbit": (
        "the camera orbiting around it",
        "seen from an orbiting camera",
        "filmed by a camera circling it",
    ),
}
_PHOTO_FORMS = (
    "a photo of {what} {where}",
    "{what} {where}",
    "{where}, {what}",
    "a picture of {what} {where}",
)
_VIDEO_FORMS = (
    "a video of {what} {where}, {motion}",
    "{what} {where}, {motion}",
    "{where}, {what}, {motion}",
    "a video of {what}, {motion}, {where}",
    "a clip of {what} {where}, {motion}",
)


def _pick(rng: np.random.Generator, choices: tuple[str, ...]) -> str:
    return choices[int(rng.integers(len(choices)))]


def _with_article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _subject_phrase(scene: Scene, rng: np.random.Generator) -> str:
    """Noun phrase with colour and pattern; "plain" is said only now and then."""
    subject = scene.subject
    says_plain = rng.random() < 0.3
    if subject.pattern == "plain" and not says_plain:
        return _with_article(f"{subject.color} {subject.class_noun}")
    return _with_article(f"{subject.color} {subject.pattern} {subject.class_noun}")


def describe(scene: Scene, *, rng: np.random.Generator, is_named: bool = True) -> str:
    """A caption of the scene; `is_named=False` leaves colour and pattern out."""
    named = _subject_phrase(scene, rng)
    what = named if is_named else _with_article(scene.subject.class_noun)
    if scene.num_frames == 1:
        return _pick(rng, _PHOTO_FORMS).format(what=what, where=scene.background)
    form, motion = _pick(rng, _VIDEO_FORMS), _pick(rng, _MOTION_PHRASES[scene.motion])
    return form.format(what=what, where=scene.background, motion=motion)
