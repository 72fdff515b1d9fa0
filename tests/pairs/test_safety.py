"""The filter asks a real classifier, and counts what it refuses."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dreambooth3d.errors import ArtifactError, ConfigError
from dreambooth3d.pairs.inference import PinnedModel
from dreambooth3d.pairs.safety import ClassifierFilter
from dreambooth3d.vision.refusal import RefusedError


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ViT folder as on the hub, with random weights."""
    import torch
    from transformers import ViTConfig, ViTForImageClassification
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    folder = tmp_path_factory.mktemp("vit")
    config = ViTConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        image_size=32, patch_size=8, id2label={0: "normal", 1: "nsfw"},
        label2id={"normal": 0, "nsfw": 1},
    )  # fmt: skip
    torch.manual_seed(0)
    model = ViTForImageClassification(config)
    # As small as they start, every picture would score one half.
    model.classifier.weight.data.mul_(40)
    model.save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def noise(seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_a_score_at_the_threshold_is_refused(classifier: Path) -> None:
    safety = ClassifierFilter(model=PinnedModel(source=str(classifier)), label="nsfw")
    scores = {seed: safety.score(noise(seed)) for seed in range(3)}
    assert len(set(scores.values())) == 3
    limit = sorted(scores.values())[1]
    strict = replace(safety, threshold=limit)
    for seed, score in scores.items():
        if score < limit:
            strict.check(noise(seed))
            continue
        with pytest.raises(RefusedError, match=f"nsfw score .* below {limit}, got {score}") as bad:
            strict.check(noise(seed))
        assert bad.value.reason == "unsafe"


def test_labels_share_the_probability(classifier: Path) -> None:
    model = PinnedModel(source=str(classifier))
    both = [
        ClassifierFilter(model=model, label=name).score(noise(5)) for name in ("normal", "nsfw")
    ]
    assert sum(both) == pytest.approx(1, abs=2e-4)


def test_answers_do_not_depend_on_threads_mode_or_process(classifier: Path) -> None:
    import torch

    safety = ClassifierFilter(model=PinnedModel(source=str(classifier)), label="nsfw")
    score = safety.score(noise(1))
    again = pickle.loads(pickle.dumps(safety))  # noqa: S301
    num_threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert again.score(noise(1).convert("RGBA")) == score
    finally:
        torch.set_num_threads(num_threads)


def test_an_unknown_label_names_those_there_are(classifier: Path) -> None:
    safety = ClassifierFilter(model=PinnedModel(source=str(classifier)), label="porn")
    with pytest.raises(ConfigError, match="label must be one of normal, nsfw, got 'porn'"):
        safety.check(noise(0))


def test_a_model_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    safety = ClassifierFilter(model=PinnedModel(source=str(tmp_path)), label="nsfw")
    with pytest.raises(ArtifactError, match="safety model must be a transformers image classifier"):
        safety.check(noise(0))


def test_settings_are_checked_and_part_of_the_fingerprint(classifier: Path) -> None:
    safety = ClassifierFilter(model=PinnedModel(source=str(classifier)), label="nsfw")
    others = [replace(safety, threshold=0.7), replace(safety, label="normal")]
    assert len({s.fingerprint() for s in (safety, *others)}) == 3
    assert replace(safety, device="cuda").fingerprint() == safety.fingerprint()
    with pytest.raises(ConfigError, match="threshold must be above 0 and at most 1, got 0"):
        replace(safety, threshold=0.0)
    with pytest.raises(ConfigError, match="label must be the name of the unsafe class"):
        replace(safety, label="")
