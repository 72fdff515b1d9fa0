"""Pictures that look alike have hashes alike, on every machine the same ones."""

import io
import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from dreambooth3d.scenes import make_scene, make_subject, render_scene
from dreambooth3d.vision.perceptual_hash import _cosines, hamming, perceptual_hash


def drawn(seed: int) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((120, 90), Image.Resampling.BICUBIC)


def as_jpeg(picture: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=quality)
    return Image.open(buffer)


def scenes(count: int) -> list[Image.Image]:
    drawn_scenes = (make_scene(make_subject(i), i, num_frames=1) for i in range(count))
    return [Image.fromarray(render_scene(scene, size=64)[0][0]) for scene in drawn_scenes]


def test_known_pictures_keep_their_hashes() -> None:
    assert perceptual_hash(drawn(3)) == 0xBDFC321889A7E262
    assert perceptual_hash(drawn(0)) == 0x0CFE5B09C8670A7E


def test_fixed_point_does_not_hang_on_the_last_bit_of_a_cosine() -> None:
    phase = np.outer(np.arange(len(_cosines())), 2 * np.arange(32) + 1) * (np.pi / 64)
    distance = np.abs((np.cos(phase) * 2**14) % 1 - 0.5)
    assert distance.min() > 1e-6


@pytest.mark.parametrize("seed", range(4))
def test_small_changes_flip_few_bits(seed: int) -> None:
    picture = drawn(seed)
    changed = [
        as_jpeg(picture, 90),
        as_jpeg(picture, 40),
        picture.resize((60, 45), Image.Resampling.LANCZOS),
        picture.resize((301, 224), Image.Resampling.BICUBIC),
        ImageEnhance.Brightness(picture).enhance(0.9),
    ]
    assert all(hamming(perceptual_hash(c), perceptual_hash(picture)) <= 4 for c in changed)


def test_other_pictures_differ_in_many_bits() -> None:
    hashes = [perceptual_hash(picture) for picture in scenes(40)]
    apart = [hamming(a, b) for a, b in itertools.combinations(hashes, 2)]
    assert min(apart) > 4
    assert np.median(apart) > 20


def test_photos_are_found_again_and_told_apart(shared: Path) -> None:
    pictures = [Image.open(p).convert("RGB") for p in sorted((shared / "photos").glob("*/*.jpg"))]
    hashes = [perceptual_hash(p) for p in pictures]
    again = [perceptual_hash(as_jpeg(p.resize((500, 500)), 60)) for p in pictures]
    assert max(hamming(a, b) for a, b in zip(hashes, again, strict=True)) <= 4
    assert min(hamming(a, b) for a, b in itertools.combinations(hashes, 2)) > 8


def test_half_of_the_bits_are_set_and_every_bit_is_used() -> None:
    hashes = [perceptual_hash(drawn(seed)) for seed in range(100)]
    assert {value.bit_count() for value in hashes} == {32}
    ones = [sum(value >> bit & 1 for value in hashes) for bit in range(64)]
    assert min(ones) > 10
    assert max(ones) < 90


def test_every_mode_and_size_has_a_hash_and_transparency_is_white() -> None:
    assert perceptual_hash(Image.new("RGB", (1, 1), "red")) == 0
    assert perceptual_hash(Image.linear_gradient("L")) == 0
    with_alpha = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    with_alpha.paste((200, 30, 30, 255), (10, 5, 25, 30))
    on_white = Image.new("RGB", (40, 40), "white")
    on_white.paste((200, 30, 30), (10, 5, 25, 30))
    expected = perceptual_hash(on_white)
    assert perceptual_hash(with_alpha) == expected
    assert hamming(perceptual_hash(on_white.convert("P")), expected) <= 2
    assert perceptual_hash(with_alpha.convert("LA")) == perceptual_hash(on_white.convert("L"))


def test_distance_counts_bits() -> None:
    assert hamming(0, 2**64 - 1) == 64
    assert hamming(0b1011, 0b0010) == 2
