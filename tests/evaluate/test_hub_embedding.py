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
    CLIPTokenizer,
    Dinov2Config,
    Dinov2Model,
)

from dreambooth3d.errors import ArtifactError, ConfigError
from dreambooth3d.evaluate.hub_embedding import (
    DINO_I,
    HubEmbedder,
    HubModel,
    TextAligner,
    find_aligner,
    find_embedder,
)
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


def save_clip(folder: Path) -> tuple[CLIPModel, CLIPImageProcessor, CLIPTokenizer]:
    """A random CLIP that reads 12 tokens; of its tokenizer nothing is saved."""
    torch.manual_seed(0)
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "mu", "mug</w>"]
    vocabulary = {word: i for i, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=[("m", "u"), ("mu", "g</w>")])
    vision = SMALL | {"intermediate_size": 64, "image_size": 32, "patch_size": 8}
    text = SMALL | {
        "intermediate_size": 64, "vocab_size": len(vocabulary), "max_position_embeddings": 12,
        "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
    }  # fmt: skip
    clip = CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=16)).eval()
    clip.save_pretrained(folder)
    processor = CLIPImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    processor.save_pretrained(folder)
    return clip, processor, tokenizer


def test_text_alignment_is_that_of_transformers(tmp_path: Path) -> None:
    clip, processor, tokenizer = save_clip(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    wanted = HubModel(kind="clip_i", repository=str(tmp_path))
    aligner = find_aligner(wanted, find_embedder(wanted))
    assert isinstance(aligner, TextAligner)
    texts = ("a mug at sea", "a red mug", "a video of a mug on a wooden desk")
    assert [aligner.cuts(text) for text in texts] == [False, False, True]
    for text in texts:
        tokens = tokenizer([text], truncation=True, max_length=12, return_tensors="pt")
        assert tokens["input_ids"][0, -1] == tokenizer.eos_token_id
        prepared = processor(images=list(map(Image.fromarray, pictures())), return_tensors="pt")
        with torch.no_grad():
            found = clip(**tokens, **prepared)
        theirs = found.logits_per_image[:, 0] / clip.logit_scale.exp()
        ours = [aligner.align(picture, aligner.embed_text(text)) for picture in pictures()]
        assert ours == pytest.approx(theirs.tolist(), abs=1e-6)
    assert len({aligner.align(pictures()[0], aligner.embed_text(text)) for text in texts}) == 3


def test_text_alignment_without_words_is_skipped(tmp_path: Path) -> None:
    save_clip(tmp_path)
    wanted = HubModel(kind="clip_i", repository=str(tmp_path))
    found = find_aligner(wanted, find_embedder(wanted))
    assert isinstance(found, Skipped)
    assert (found.name, "is not here: got one of" in found.reason) == ("clip_t", True)
    found = find_aligner(wanted, Skipped(name="clip_i", reason="no weights"))
    assert found == Skipped(name="clip_t", reason="no weights")
    with pytest.raises(ConfigError, match="must be embedded by clip_i"):
        TextAligner(embedder=HubEmbedder(kind="dino_i", model=None, processor=None), tokenizer=None)


def test_clip_embeddings_are_those_of_transformers(tmp_path: Path) -> None:
    clip, processor, _ = save_clip(tmp_path)
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
