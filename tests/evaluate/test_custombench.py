import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dreambooth3d.artifacts.clip import write_clip
from dreambooth3d.artifacts.subject import write_subject
from dreambooth3d.errors import InputError
from dreambooth3d.evaluate.custombench import read_benchmark
from dreambooth3d.evaluate.intervals import bootstrap


@pytest.fixture
def subjects(tmp_path: Path) -> Path:
    view = Image.new("RGB", (32, 32), "red")
    view.paste("blue", (8, 8, 20, 20))
    for name in ("mug", "duck", "bear"):
        folder = tmp_path / "subjects" / name
        write_subject(folder, id=name, class_noun=name, images=[view], references=[view])
    return tmp_path / "subjects"


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")


def test_clips_name_their_subject_in_three_ways(subjects: Path, tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    for name in ("mug.mp4", "duck/10.mp4", "duck/2.mp4", "third.mp4", "mug/odd.mp4", ".mug.mp4"):
        touch(clips / name)
    (clips / "third.mp4.json").write_text('{"subject": "duck"}')
    (clips / "mug" / "odd.json").write_text('{"subject": "duck"}')
    touch(clips / "landscape.mp4")
    found = read_benchmark(subjects, clips)
    names = [(clip.path.relative_to(clips).as_posix(), clip.subject) for clip in found.clips]
    assert ("mug.mp4", "mug") in names
    assert names.index(("duck/2.mp4", "duck")) < names.index(("duck/10.mp4", "duck"))
    assert ("third.mp4", "duck") in names
    assert ("mug/odd.mp4", "duck") in names
    assert len(names) == 5
    assert found.without_subject == (clips / "landscape.mp4",)
    assert found.without_clip == ("bear",)


def test_a_clip_has_the_prompt_that_is_nearest_to_it(subjects: Path, tmp_path: Path) -> None:
    clips, frames = tmp_path / "clips" / "mug", np.zeros((1, 32, 32, 3), np.uint8)
    said = dict.fromkeys("abc", "a video of a [sks mug] at sea") | {"d": " [] "}
    for name, prompt in said.items():
        write_clip(clips / f"{name}.mp4", frames, fps=8, metadata={"prompt": prompt})
        (clips / f"{name}.mp4.json").unlink()
    (clips / "a.json").write_text('{"prompt": "the [sks mug] in a wood"}')
    (clips / "b.mp4.json").write_text('{"prompt": 3}')
    (clips / "c.json").write_text('{"prompt": "half a letter \\ud800"}')
    (clips / "e.mp4").write_bytes(b"no clip")

    def prompts() -> dict[str, str | None]:
        return {
            clip.path.stem: clip.prompt for clip in read_benchmark(subjects, clips.parent).clips
        }

    at_sea = "a video of a mug at sea"
    expected = {"a": "the mug in a wood", "b": at_sea, "c": at_sea, "d": None, "e": None}
    assert prompts() == expected
    (subjects / "mug" / "prompt.txt").write_text("a [sks mug] on a desk\n")
    assert prompts() == expected | {"d": "a mug on a desk", "e": "a mug on a desk"}
    (subjects / "mug" / "prompt.txt").write_text("a [sks mug] on a desk\na [sks mug] at home\n")
    assert prompts() == expected


def test_the_published_archive_may_be_passed_whole(subjects: Path, tmp_path: Path) -> None:
    touch(tmp_path / "clips" / "mug.mp4")
    assert list(read_benchmark(subjects.parent, tmp_path / "clips").subjects) == [
        "bear", "duck", "mug",
    ]  # fmt: skip


def test_what_cannot_be_scored_is_said(subjects: Path, tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    with pytest.raises(InputError, match="--clips must be a folder"):
        read_benchmark(subjects, clips)
    clips.mkdir()
    with pytest.raises(InputError, match="--clips must hold clips"):
        read_benchmark(subjects, clips)
    for number in range(5):
        touch(clips / f"clip{number}.mp4")
    with pytest.raises(InputError, match=r"clip2\.mp4 and 2 more and subjects bear, duck, mug"):
        read_benchmark(subjects, clips)
    (clips / "clip1.mp4.json").write_text("{")
    with pytest.raises(InputError, match=r"2 more \(clip1\.mp4: .*clip1\.mp4\.json"):
        read_benchmark(subjects, clips)
    with pytest.raises(InputError, match="--subjects must be a folder"):
        read_benchmark(tmp_path / "none", clips)
    with pytest.raises(InputError, match="--subjects must hold folders"):
        read_benchmark(clips, clips)


def test_what_cannot_be_used_costs_itself_alone(subjects: Path, tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    for name in ("mug", "bear", "duck"):
        touch(clips / f"{name}.mp4")
    touch(clips / "two" / "mug.mp4")
    (clips / "two" / "mug.mp4.json").write_text("[")
    (subjects / "bear" / "references" / "001.png").write_bytes(b"no picture")
    (subjects / "duck" / "metadata.json").unlink()
    (subjects / "notes").mkdir()
    found = read_benchmark(subjects, clips)
    assert [clip.path.name for clip in found.clips] == ["mug.mp4"]
    assert list(found.subjects) == ["mug"]
    assert set(found.refused) == {"bear", "duck", "bear.mp4", "duck.mp4", "two/mug.mp4"}
    assert "001.png" in found.refused["bear"]
    assert "metadata.json" in found.refused["duck"]
    assert found.refused["duck.mp4"] == "its subject duck cannot be used"
    (subjects / "mug" / "references" / "001.png").unlink()
    with pytest.raises(InputError, match=r"none that can be used.*bear: "):
        read_benchmark(subjects, clips)


@pytest.mark.parametrize(
    ("view", "why"),
    [
        (Image.new("RGB", (32, 32), "white"), "got one colour"),
        (Image.new("RGBA", (32, 32)), "got one colour"),
        (Image.effect_noise((8, 8), 50).convert("RGB"), "at least 16 pixels a side, got 8x8"),
    ],
)
def test_a_view_shows_an_object(
    view: Image.Image, why: str, subjects: Path, tmp_path: Path
) -> None:
    touch(tmp_path / "clips" / "mug.mp4")
    view.save(subjects / "duck" / "references" / "001.png")
    assert why in read_benchmark(subjects, tmp_path / "clips").refused["duck"]


def test_prompts_that_are_no_utf_8_are_named(subjects: Path, tmp_path: Path) -> None:
    touch(tmp_path / "clips" / "mug.mp4")
    (subjects / "duck" / "prompt.txt").write_bytes("ein Stück".encode("latin-1"))
    assert "prompts must be UTF-8" in read_benchmark(subjects, tmp_path / "clips").refused["duck"]


def test_an_id_is_of_one_subject(subjects: Path, tmp_path: Path) -> None:
    touch(tmp_path / "clips" / "mug.mp4")
    (subjects / "duck" / "metadata.json").write_text('{"id": "bear", "class_noun": "duck"}')
    assert list(read_benchmark(subjects, tmp_path / "clips").refused) == ["duck"]


def test_intervals_cover_the_mean_and_are_repeatable() -> None:
    values = list(np.random.default_rng(0).normal(0.5, 0.1, 100))
    one, two = (bootstrap(values, seed=1, num_resamples=2000) for _ in range(2))
    assert one == two
    assert one.low < np.mean(values) < one.high
    assert one.high - one.low == pytest.approx(2 * 1.96 * np.std(values) / 10, rel=0.1)
    alone = bootstrap([0.25], seed=0, num_resamples=10)
    assert (alone.mean, str(alone)) == (0.25, "0.2500")
    assert np.isnan(alone.low)
    assert json.loads(json.dumps(alone.num_values)) == 1
