from pathlib import Path

import pytest
import torch
from diffusers import HunyuanVideo15Pipeline

from dreambooth3d.backbone.components import (
    Components,
    build_components,
    build_transformer,
    build_vae,
    save_folder,
)
from dreambooth3d.backbone.config import BackboneTrainConfig
from dreambooth3d.backbone.latents import encode_captions
from dreambooth3d.errors import ConfigError
from dreambooth3d.model.backbone import load_prompts

CAPTIONS = ("a photo of a red car on a beach", "a video of a blue dog at night, turning left")


@pytest.fixture(scope="module")
def parts(config: BackboneTrainConfig) -> Components:
    return build_components(config, CAPTIONS)


@pytest.fixture(scope="module")
def folder(parts: Components, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("backbone") / "tiny"
    save_folder(parts, path, flow_shift=3.0)
    return path


def test_folder_loads_with_the_unchanged_pipeline(folder: Path, parts: Components) -> None:
    pipe = HunyuanVideo15Pipeline.from_pretrained(folder, torch_dtype=torch.float32)
    assert pipe.scheduler.config.shift == 3.0
    saved = pipe.transformer.state_dict()
    for name, value in parts.transformer.state_dict().items():
        assert torch.equal(saved[name].half(), value.half()), name


@pytest.mark.parametrize(
    "text", ["", "a red car", "héllo wörld ☃ 你好", 'says "HI" [sks car]', "\n\t  x  "]
)
def test_tokenizer_round_trip(parts: Components, text: str) -> None:
    assert parts.tokenizer.decode(parts.tokenizer(text)["input_ids"]) == text


def test_common_words_are_single_tokens(parts: Components) -> None:
    assert len(parts.tokenizer(" red car beach sks")["input_ids"]) == 4


def test_pipeline_and_prompt_encoder_see_the_same_states(folder: Path) -> None:
    pipe = HunyuanVideo15Pipeline.from_pretrained(folder, torch_dtype=torch.float32)
    ours = load_prompts(folder)
    for text in (*CAPTIONS, ""):
        states, mask = pipe._get_mllm_prompt_embeds(
            pipe.text_encoder,
            pipe.tokenizer,
            text,
            torch.device("cpu"),
            system_message=pipe.system_message,
            crop_start=pipe.prompt_template_encode_start_idx,
        )
        torch.testing.assert_close(states[0][mask[0].bool()].float(), ours(text).states_SD)


def test_batched_captions_equal_the_prompt_encoder(folder: Path, parts: Components) -> None:
    ours = load_prompts(folder)
    texts = [*CAPTIONS, ""]
    for text, states in zip(texts, encode_captions(parts, texts, batch=2), strict=True):
        torch.testing.assert_close(states.float(), ours(text).states_SD, atol=5e-3, rtol=2e-3)


def test_text_states_keep_word_order(parts: Components) -> None:
    one, other = encode_captions(parts, ["a red car, a blue wall", "a blue car, a red wall"])
    assert (one - other).float().square().mean(dim=1)[2] > 0.1 * one.float().square().mean()


def test_shipped_shape_stays_under_40_mb() -> None:
    config = BackboneTrainConfig()
    with torch.device("meta"):
        models = (build_vae(config), build_transformer(config))
    half_bytes = 2 * sum(p.numel() for model in models for p in model.parameters())
    assert half_bytes < 39_000_000


@pytest.mark.parametrize(
    "settings", [{"num_frames": 16}, {"width": 100}, {"size": 60}, {"text_dropout": 1.5}]
)
def test_wrong_settings_name_the_field(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        BackboneTrainConfig(**settings)  # type: ignore[arg-type]
