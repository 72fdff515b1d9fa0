"""The scenes a backbone is measured on: held-out subjects, chosen by the suite's seed."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice, product

import numpy as np
from numpy.typing import NDArray

from dreambooth3d.evaluate.config import BackboneSuiteConfig
from dreambooth3d.scenes import (
    CLASSES,
    COLORS,
    FIRST_HELD_OUT_SEED,
    PATTERNS,
    Scene,
    describe,
    is_held_out,
    make_scene,
    make_subject,
    render_scene,
)

# Above every held-out seed that a training scores itself on.
_FIRST_SEED = 2 * FIRST_HELD_OUT_SEED
# Each suite seed owns a range; its three sets of scenes start at places in it.
_SEEDS_A_SUITE = 10_000
_KNOWN, _UNSEEN, _TURNING = 0, 4_000, 8_000
_TURNS = ("turntable left", "turntable right")


@dataclass(frozen=True, kw_only=True)
class SuiteScenes:
    """What is asked of a backbone.

    Attributes:
        known: class, colour and pattern were seen together in training, the subjects were not.
        unseen: they were never seen together.
        turning: known combinations on a turntable.
    """

    known: tuple[Scene, ...]
    unseen: tuple[Scene, ...]
    turning: tuple[Scene, ...]


def choose_scenes(config: BackboneSuiteConfig, *, num_frames: int) -> SuiteScenes:
    """Choose the scenes of `config.seed`; another seed gives other subjects."""
    first = _FIRST_SEED + _SEEDS_A_SUITE * config.seed
    turning = islice(_known_scenes(first + _TURNING, num_frames), config.num_turning)
    return SuiteScenes(
        known=tuple(islice(_known_scenes(first + _KNOWN, num_frames), config.num_scenes)),
        unseen=tuple(_unseen_scenes(config, first + _UNSEEN, num_frames)),
        turning=tuple(
            make_scene(
                scene.subject,
                scene.seed,
                num_frames=num_frames,
                motion=_TURNS[place % len(_TURNS)],
            )
            for place, scene in enumerate(turning)
        ),
    )


def held_out_combinations() -> list[tuple[str, str, str]]:
    """Every class, colour and pattern that training never shows together."""
    return [names for names in product(CLASSES, COLORS, PATTERNS) if is_held_out(*names)]


def _known_scenes(first_seed: int, num_frames: int) -> Iterator[Scene]:
    for seed in count(first_seed):
        subject = make_subject(seed)
        if not is_held_out(subject.class_noun, subject.color, subject.pattern):
            yield make_scene(subject, seed, num_frames=num_frames)


def _unseen_scenes(
    config: BackboneSuiteConfig, first_seed: int, num_frames: int
) -> Iterator[Scene]:
    known = held_out_combinations()
    order = np.random.default_rng(config.seed).permutation(len(known))
    for place in range(config.num_scenes):
        class_noun, color, pattern = known[order[place % len(known)]]
        seed = first_seed + place
        subject = make_subject(seed, class_noun=class_noun, color=color, pattern=pattern)
        yield make_scene(subject, seed, num_frames=num_frames)


def caption(scene: Scene) -> str:
    """The prompt of a scene: it names colour, pattern, class, background and motion."""
    return describe(scene, rng=np.random.default_rng(scene.seed), is_named=True)


def render_all(scenes: tuple[Scene, ...], *, size: int) -> NDArray[np.uint8]:
    """Real clips of scenes of equal length, (N, F, H, W, 3)."""
    return np.stack([render_scene(scene, size=size)[0] for scene in scenes])
