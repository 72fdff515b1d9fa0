from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dreambooth3d.errors import ConfigError, InputError
from dreambooth3d.evaluate.config import EvaluateConfig
from dreambooth3d.evaluate.identity import identity_score, identity_table
from dreambooth3d.evaluate.object_embedding import measure_mean_object
from dreambooth3d.scenes import make_scene, make_subject, reference_cameras, render_scene
from dreambooth3d.scenes import render_view as render
from dreambooth3d.vision.efficientnet import embed
from dreambooth3d.vision.object_embedding import cut_to_object, embed_objects, load_mean_object

CONFIG = EvaluateConfig()


def views(seed: int) -> list[Image.Image]:
    subject = make_subject(seed)
    return [Image.fromarray(render(subject, c, size=64).rgb) for c in reference_cameras(4)]


def test_the_same_picture_scores_one() -> None:
    (view,) = views(1_000_000)[:1]
    frames = np.asarray(cut_to_object(view))[None]
    assert identity_score(frames, [view], CONFIG) == pytest.approx(1.0, abs=1e-4)


def test_a_clip_of_the_subject_beats_a_clip_of_another() -> None:
    seeds = (1_000_000, 1_000_019, 1_000_033)
    clips = [render_scene(make_scene(make_subject(s), s, num_frames=3), size=64)[0] for s in seeds]
    table = identity_table(clips, [views(s) for s in seeds], CONFIG)
    assert (table.argmax(axis=1) == np.arange(3)).all(), table.round(2)


def test_real_objects_are_told_apart(shared: Path) -> None:
    folders = sorted((shared / "subjects").iterdir())[:4]
    pictures = [[Image.open(p) for p in sorted((f / "references").iterdir())] for f in folders]
    clips = [np.asarray(own[1].convert("RGB"))[None] for own in pictures]
    table = identity_table(clips, [[own[0], own[2], own[3]] for own in pictures], CONFIG)
    assert (table.argmax(axis=1) == np.arange(4)).all(), table.round(2)


def test_cutting_keeps_the_whole_object_in_a_square() -> None:
    page = np.full((50, 80, 3), 255, dtype=np.uint8)
    page[10:20, 5:45] = 90
    cut = cut_to_object(Image.fromarray(page))
    assert cut.shape == (40, 40, 3)
    assert (cut == 90).all(axis=2).sum() == 400
    blank = cut_to_object(Image.new("RGB", (7, 5), "white"))
    assert blank.shape == (5, 7, 3)


def test_embeddings_do_not_depend_on_the_batch() -> None:
    images = [np.asarray(v) for v in views(1_000_001)]
    one_by_one = embed(images, batch_size=1)
    assert np.allclose(embed(images, batch_size=4), one_by_one, atol=1e-5)
    assert np.allclose(one_by_one.norm(dim=1), 1, atol=1e-5)


def test_the_packaged_mean_object_is_what_its_command_measures() -> None:
    found = measure_mean_object(num_objects=32)
    similarity = torch.nn.functional.cosine_similarity(found, load_mean_object(), dim=0)
    assert similarity > 0.99
    assert float(load_mean_object().norm()) < 1


def test_measuring_from_the_mean_object_parts_captured_subjects_further(shared: Path) -> None:
    folders = sorted((shared / "subjects").iterdir())
    paths = [path for folder in folders for path in sorted((folder / "references").iterdir())]
    owners = np.array([path.parent.parent.name for path in paths])
    crops = [cut_to_object(Image.open(path)) for path in paths]
    is_same = (owners[:, None] == owners) & ~np.eye(len(owners), dtype=np.bool_)
    is_other = owners[:, None] != owners

    def separation(found: torch.Tensor) -> float:
        similarity = (found @ found.T).numpy()
        same, other = similarity[is_same], similarity[is_other]
        return float((same.mean() - other.mean()) / np.sqrt((same.var() + other.var()) / 2))

    assert separation(embed_objects(crops, batch_size=8)) > separation(embed(crops)) > 3


def test_nothing_to_compare_with_is_refused() -> None:
    with pytest.raises(InputError, match="at least one reference view"):
        identity_score(np.zeros((1, 8, 8, 3), np.uint8), [], CONFIG)
    with pytest.raises(ConfigError, match="batch_size"):
        EvaluateConfig(batch_size=0)
