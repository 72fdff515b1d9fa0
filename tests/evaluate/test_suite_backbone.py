import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dreambooth3d.errors import ConfigError
from dreambooth3d.evaluate import suite_backbone
from dreambooth3d.evaluate.config import BackboneSuiteConfig
from dreambooth3d.evaluate.probe import Probe, Reading
from dreambooth3d.evaluate.sampling import Prompt, sample_clips
from dreambooth3d.evaluate.suite_scenes import (
    SuiteScenes,
    caption,
    choose_scenes,
    held_out_combinations,
)
from dreambooth3d.evaluate.suite_scores import relative
from dreambooth3d.model.backbone import load_backbone
from dreambooth3d.scenes import FIRST_HELD_OUT_SEED, Scene, is_held_out, make_scene, make_subject


def names(scene: Scene) -> tuple[str, str, str]:
    return scene.subject.class_noun, scene.subject.color, scene.subject.pattern


def seeds(scenes: SuiteScenes) -> set[int]:
    return {scene.seed for part in (scenes.known, scenes.unseen, scenes.turning) for scene in part}


@pytest.fixture(scope="module")
def scenes() -> SuiteScenes:
    return choose_scenes(BackboneSuiteConfig(seed=1), num_frames=5)


def test_subjects_are_held_out(scenes: SuiteScenes) -> None:
    assert (len(scenes.known), len(scenes.unseen), len(scenes.turning)) == (64, 64, 64)
    assert len(seeds(scenes)) == 192
    assert min(seeds(scenes)) >= FIRST_HELD_OUT_SEED


def test_combinations_are_known_or_unseen(scenes: SuiteScenes) -> None:
    assert not any(is_held_out(*names(scene)) for scene in (*scenes.known, *scenes.turning))
    assert all(is_held_out(*names(scene)) for scene in scenes.unseen)
    assert len({names(scene) for scene in scenes.unseen}) == 64
    assert len(held_out_combinations()) >= 64


def test_turntables_turn_both_ways(scenes: SuiteScenes) -> None:
    motions = [scene.motion for scene in scenes.turning]
    assert motions.count("turntable left") == motions.count("turntable right") == 32


def test_another_seed_gives_other_scenes(scenes: SuiteScenes) -> None:
    other = choose_scenes(BackboneSuiteConfig(seed=2), num_frames=5)
    assert not seeds(scenes) & seeds(other)
    again = choose_scenes(BackboneSuiteConfig(seed=1), num_frames=5)
    assert [caption(s) for s in again.known] == [caption(s) for s in scenes.known]


def test_captions_name_what_is_read(scenes: SuiteScenes) -> None:
    for scene in (*scenes.known, *scenes.unseen):
        text = caption(scene)
        for word in (scene.subject.class_noun, scene.subject.color, scene.background):
            assert word in text


def test_following_counts_each_name_alone() -> None:
    subject = make_subject(FIRST_HELD_OUT_SEED, class_noun="duck", color="red")
    scene = make_scene(subject, 3, num_frames=5, background="at night", motion="slide left")
    right = Reading(class_noun="duck", color="red", background="at night", motion="slide left")
    wrong = Reading(class_noun="fish", color="red", background="at night", motion="still")
    found = suite_backbone.follow([scene, scene], [right, wrong])
    assert (found.class_noun, found.color, found.background, found.motion) == (0.5, 1.0, 1.0, 0.5)


def test_frozen_and_flickering_clips_are_told_apart() -> None:
    clips = np.zeros((2, 3, 8, 8, 3), np.uint8)
    assert suite_backbone.mean_change(clips) == 0
    clips[:, 1] = 10
    assert suite_backbone.mean_change(clips) == pytest.approx(10)
    assert relative(12.0, 10.0) == pytest.approx(0.2)
    assert np.isnan(relative(1.0, 0.0))


def test_a_clip_does_not_depend_on_its_neighbours(miniature: Path) -> None:
    backbone = load_backbone(str(miniature))
    config = BackboneSuiteConfig(steps=2, batch_size=2)
    prompts = [
        Prompt(text="a video of a red car on a beach, not moving", noise_key=1),
        Prompt(text="a sks mug", noise_key=2),
    ]
    both = sample_clips(backbone, prompts, config, num_frames=5)
    assert both.shape == (2, 5, 32, 32, 3)
    alone = sample_clips(backbone, prompts[1:], config, num_frames=5)
    # bf16 rounds a batch of another shape a little differently.
    assert np.abs(both[1].astype(int) - alone[0]).mean() < 2


def test_the_suite_runs_end_to_end(miniature: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    lines: list[str] = []
    config = BackboneSuiteConfig(num_scenes=2, num_turning=2, num_frames=5, steps=2, batch_size=2)
    score = suite_backbone.run(
        config, load_backbone(str(miniature)), Probe().eval(), tmp_path, report=lines.append
    )
    assert score.change_real > 0
    assert 0 < score.vae_psnr < 60
    written = json.loads((tmp_path / "report.json").read_text())["data"]["score"]
    assert written["generated"]["background"] == score.generated.background
    assert written["moves"] == pytest.approx(score.moves)
    assert (tmp_path / "index.html").is_file()
    assert (tmp_path / "contact_sheet.png").is_file()
    assert any("clips sampled, eta" in line for line in lines)


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"guidance_scale": -1.0}, "guidance_scale must be at least 0 and at most 100"),
    ],
)
def test_bad_settings_are_refused(setting: dict[str, float], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        BackboneSuiteConfig(**setting)  # type: ignore[arg-type]
