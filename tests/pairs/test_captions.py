"""Captions are words on one line, whatever a table or a model writes."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dreambooth3d.errors import ArtifactError, ConfigError
from dreambooth3d.pairs.captions import (
    Caption,
    VisionLanguageCaptioner,
    choose_caption,
    clean_caption,
    describe_target,
    template_caption,
)
from dreambooth3d.pairs.inference import PinnedModel
from dreambooth3d.vision.refusal import RefusedError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SPECIALS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ c['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("  a\tred\r\n mug\u00a0 on\u2003a desk ", "a red mug on a desk"),
        ("a\x00red\x1b[31m mug\x7f", "a red (31m mug"),
        ("a \u200bred\ufeff m\u00adug\u202e", "a red mug"),
        ("cafe\u0301 \ud800\ufffd", "caf\u00e9"),
        ("a [sks mug] on a desk", "a (sks mug) on a desk"),
        ("کتاب\u200cها", "کتاب\u200cها"),
        ("红色的杯子。", "红色的杯子。"),
        (None, ""),
        (float("nan"), ""),
        ("NaN", ""),
        (" None ", ""),
        ("", ""),
        (" \n\t ", ""),
        ("... 123 !!", ""),
        ("none of these", "none of these"),
    ],
)
def test_given_captions_are_cleaned(raw: object, clean: str) -> None:
    assert clean_caption(raw) == clean


@pytest.mark.parametrize("raw", [5, 1.5, b"a mug", ["a mug"], {"caption": "a mug"}])
def test_what_is_no_text_is_refused(raw: object) -> None:
    with pytest.raises(RefusedError, match="caption must be text, got") as refused:
        clean_caption(raw)
    assert refused.value.reason == "bad_caption"


def test_long_captions_end_with_a_sentence_or_a_word() -> None:
    assert (
        clean_caption("A red mug. On a desk. In a room.", max_chars=24) == "A red mug. On a desk."
    )
    assert clean_caption("A red mug. On a desk.", max_chars=21) == "A red mug. On a desk."
    assert clean_caption("A mug of 3.5 litres, on a desk", max_chars=20) == "A mug of 3.5 litres"
    assert clean_caption("Mr. Smith holds a very red mug", max_chars=24) == "Mr. Smith holds a very"
    assert clean_caption("杯子。杯子在桌上。很大", max_chars=9) == "杯子。杯子在桌上。"
    assert clean_caption("x" * 50, max_chars=7) == "x" * 7
    assert len(clean_caption("word " * 5000)) <= 1000


@settings(deadline=None, max_examples=200)
@given(st.text(st.characters(), max_size=80), st.integers(8, 60))
def test_any_text_becomes_one_clean_line(raw: str, max_chars: int) -> None:
    text = clean_caption(raw, max_chars=max_chars)
    assert len(text) <= max_chars
    assert text == clean_caption(text, max_chars=max_chars)
    assert text == " ".join(text.split())
    assert not set("[]\x00\n\r") & set(text)
    assert text.encode().decode() == text


def test_the_template_stands_in_for_a_missing_caption() -> None:
    assert choose_caption("A mug.", "mug") == Caption(text="A mug.", kind="given")
    assert choose_caption("", "rubber duck").text == "a photo of a rubber duck"
    assert choose_caption(None, " orange\ntrain ").text == "a photo of an orange train"
    assert choose_caption(float("nan"), "mug").kind == "template"
    assert template_caption("Ente") == "a photo of an Ente"


def test_nothing_known_is_a_bad_caption() -> None:
    with pytest.raises(RefusedError, match="or the class must be known, got 'nan'") as refused:
        choose_caption("nan", " ")
    assert refused.value.reason == "bad_caption"
    with pytest.raises(RefusedError) as refused:
        choose_caption("\x1b\ud800" * 500, "")
    assert str(refused.value).isascii()
    assert len(str(refused.value)) < 200


class Silent:
    """A captioner of a person who has nothing to say."""

    def __call__(self, picture: Image.Image) -> str:
        return " \n"

    def fingerprint(self) -> str:
        return "silent"


def test_a_captioner_that_says_nothing_is_refused() -> None:
    with pytest.raises(RefusedError, match="caption of a model must have words"):
        describe_target(picture(), Silent())


def picture(seed: int = 0, size: tuple[int, int] = (80, 64)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def write_tokenizer(folder: Path) -> dict[str, int]:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import Qwen2Tokenizer

    plain = Qwen2Tokenizer(vocab={SPECIALS[0]: 0}, merges=[])
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = plain.backend_tokenizer.pre_tokenizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=list(SPECIALS), initial_alphabet=alphabet,
        show_progress=False,
    )  # fmt: skip
    trained.train_from_iterator(["a photo of a red cup on a table"] * 9, trainer)
    state = json.loads(trained.to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=state["vocab"], merges=[tuple(pair) for pair in state["merges"]],
        extra_special_tokens=list(SPECIALS[1:]),
    )  # fmt: skip
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return {name: tokenizer.convert_tokens_to_ids(name) for name in SPECIALS} | {
        "size": len(tokenizer)
    }


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen2.5-VL folder as on the hub, with random weights."""
    import torch
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import (
        Qwen2VLImageProcessorPil,
    )

    folder = tmp_path_factory.mktemp("qwen")
    ids = write_tokenizer(folder)
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": ids["size"], "hidden_size": 32, "intermediate_size": 32,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
            "max_position_embeddings": 1024, "bos_token_id": 0, "eos_token_id": ids["<|im_end|>"],
            "rope_parameters": rope,
        },
        vision_config={
            "depth": 2, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2,
            "out_hidden_size": 32, "patch_size": 14, "window_size": 56,
            "fullatt_block_indexes": [1],
        },
        image_token_id=ids["<|image_pad|>"], video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"], vision_end_token_id=ids["<|vision_end|>"],
    )  # fmt: skip
    torch.manual_seed(0)
    Qwen2_5_VLForConditionalGeneration(config).save_pretrained(folder)
    sizes = {"shortest_edge": 28 * 28, "longest_edge": 84 * 84}
    Qwen2VLImageProcessorPil(size=sizes).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaVA folder with random weights: a model whose processor knows no films."""
    import torch
    from transformers import (
        AutoTokenizer,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    folder = tmp_path_factory.mktemp("llava")
    ids = write_tokenizer(folder)
    config = LlavaConfig(
        text_config={
            "model_type": "llama", "vocab_size": ids["size"], "hidden_size": 32,
            "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
            "eos_token_id": ids["<|im_end|>"], "bos_token_id": 0,
        },
        vision_config={
            "model_type": "clip_vision_model", "hidden_size": 32, "intermediate_size": 32,
            "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28, "patch_size": 14,
            "projection_dim": 32,
        },
        image_token_id=ids["<|image_pad|>"],
    )  # fmt: skip
    torch.manual_seed(0)
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    sizes = {"height": 28, "width": 28}
    LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size=sizes),
        tokenizer=AutoTokenizer.from_pretrained(folder), patch_size=14,
        vision_feature_select_strategy="default", image_token="<|image_pad|>",
        num_additional_image_tokens=1, chat_template=TEMPLATE,
    ).save_pretrained(folder)  # fmt: skip
    return folder


@pytest.mark.parametrize("family", ["qwen", "llava"])
def test_a_model_describes_a_picture_always_with_the_same_words(
    family: str, request: pytest.FixtureRequest
) -> None:
    import torch

    folder = request.getfixturevalue(family)
    captioner = VisionLanguageCaptioner(
        model=PinnedModel(source=str(folder)), max_new_tokens=12, max_side=84
    )
    words = captioner(picture())
    assert words
    assert "<|" not in words
    # One random layer of LLaVA hardly looks at the picture; the other model must.
    assert family == "llava" or captioner(picture(1)) != words
    num_threads = torch.get_num_threads()
    again = pickle.loads(pickle.dumps(captioner))  # noqa: S301
    torch.set_num_threads(2)
    try:
        assert again(picture()) == words
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(num_threads)
    assert again(picture().convert("RGBA")) == words


def test_the_fingerprint_covers_weights_and_instruction(qwen: Path) -> None:
    model = PinnedModel(source=str(qwen))
    plain = VisionLanguageCaptioner(model=model)
    assert plain.fingerprint() == VisionLanguageCaptioner(model=model).fingerprint()
    assert VisionLanguageCaptioner(model=model, instruction="Tell.").fingerprint() != (
        plain.fingerprint()
    )
    before = model.fingerprint()
    (qwen / "generation_config.json").write_text("{}")
    assert model.fingerprint() != before


def test_models_are_pinned() -> None:
    pinned = PinnedModel(source="owner/name", revision=COMMIT)
    assert pinned.fingerprint() != PinnedModel(source="owner/other", revision=COMMIT).fingerprint()
    with pytest.raises(ConfigError, match="must be a commit of 40 hex digits, got 'main'"):
        PinnedModel(source="owner/name", revision="main")
    with pytest.raises(ConfigError, match=r"folder with config.json or a hub id"):
        PinnedModel(source="/no/such/folder")


def test_a_local_model_has_no_revision_and_must_be_of_its_kind(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(ConfigError, match="revision must be empty for a local model"):
        PinnedModel(source=str(tmp_path), revision=COMMIT)
    captioner = VisionLanguageCaptioner(model=PinnedModel(source=str(tmp_path)))
    with pytest.raises(ArtifactError, match="captioner must be a transformers image-text-to-text"):
        captioner(picture())


def test_settings_are_checked() -> None:
    model = PinnedModel(source="owner/name", revision=COMMIT)
    with pytest.raises(ConfigError, match="max_new_tokens must be at least 1"):
        VisionLanguageCaptioner(model=model, max_new_tokens=0)
    with pytest.raises(ConfigError, match="instruction must be words"):
        VisionLanguageCaptioner(model=model, instruction=" ")
