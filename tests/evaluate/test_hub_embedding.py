"""Our numbers against transformers' own, on tiny random networks."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from transformers import (
    BitImageProcessor,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    Dinov2Config,
    Dinov2Model,
)

from dreambooth3d.errors import ArtifactError, ConfigError
from dreambooth3d.evaluate.hub_embedding import DINO_I, HubEmbedder, HubModel, find_embedder
from dreambooth3d.evaluate.skipping import Skipped

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def pictures() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    sizes = ((40, 60), (64, 64), (90, 31))
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


def loaded(model: HubModel) -> HubEmbedder:
    found = find_embedder(model)
    assert isinstance(found, HubEmbedder)
    return found


def test_clip_embeddings_are_those_of_transformers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    vision = SMALL | {"intermediate_size": 64, "image_size": 32, "patch_size": 8}
    text = SMALL | {"intermediate_size": 64, "vocab_size": 50}
    clip = CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=16)).eval()
    clip.save_pretrained(tmp_path)
    processor = CLIPImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    processor.save_pretrained(tmp_path)
    ours = loaded(HubModel(kind="clip_i", repository=str(tmp_path)))(pictures(), batch_size=2)
    for row, picture in zip(ours, pictures(), strict=True):
        prepared = processor(images=Image.fromarray(picture), return_tensors="pt")
        with torch.no_grad():
            theirs = clip.visual_projection(clip.vision_model(**prepared).pooler_output)
        assert (row - F.normalize(theirs, dim=-1)[0]).abs().max() < 1e-4


def test_dino_embeddings_are_those_of_transformers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    dino = Dinov2Model(Dinov2Config(**SMALL, image_size=28, patch_size=14)).eval()
    dino.save_pretrained(tmp_path)
    processor = BitImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 28, "width": 28})
    processor.save_pretrained(tmp_path)
    ours = loaded(HubModel(kind="dino_i", repository=str(tmp_path)))(pictures())
    for row, picture in zip(ours, pictures(), strict=True):
        prepared = processor(images=Image.fromarray(picture), return_tensors="pt")
        with torch.no_grad():
            theirs = dino(**prepared).pooler_output
        assert (row - F.normalize(theirs, dim=-1)[0]).abs().max() < 1e-4
        assert float(row.norm()) == pytest.approx(1, abs=1e-5)


def test_weights_that_are_not_here_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = find_embedder(HubModel(kind="dino_i", repository=str(tmp_path)))
    assert isinstance(found, Skipped)
    assert found.name == "dino_i"
    assert str(tmp_path) in found.reason
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert isinstance(find_embedder(DINO_I), Skipped)


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    Dinov2Model(Dinov2Config(**SMALL, image_size=28, patch_size=14)).save_pretrained(tmp_path)
    BitImageProcessor().save_pretrained(tmp_path)
    card = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(
        card.replace('"num_hidden_layers": 2', '"num_hidden_layers": 3')
    )
    with pytest.raises(ArtifactError, match="must be those of Dinov2Model"):
        find_embedder(HubModel(kind="dino_i", repository=str(tmp_path)))


def test_what_may_change_elsewhere_must_be_pinned() -> None:
    with pytest.raises(ConfigError, match="must be a commit"):
        HubModel(kind="clip_i", repository="somebody/clip")
    with pytest.raises(ConfigError, match="clip_i or dino_i"):
        HubModel(kind="clip", repository="somebody/clip", revision="0" * 40)  # type: ignore[arg-type]
