"""Build every untrained part of a backbone, and save the folder.

The folder has the layout of the HunyuanVideo-1.5 repositories on the hub, so everything that reads
those reads this one.
"""

import inspect
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from diffusers import (
    AutoencoderKLHunyuanVideo15,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideo15Pipeline,
    HunyuanVideo15Transformer3DModel,
)
from diffusers.guiders import ClassifierFreeGuidance
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import nn
from transformers import (
    ByT5Tokenizer,
    Qwen2_5_VLTextConfig,
    Qwen2_5_VLTextModel,
    Qwen2Tokenizer,
    T5Config,
    T5EncoderModel,
)

from dreambooth3d.backbone.config import BackboneTrainConfig
from dreambooth3d.backbone.vocabulary import WORDS
from dreambooth3d.errors import ConfigError

SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{{ '<|endoftext|>' * FILL }}"
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
GLYPH_WIDTH = 32
IMAGE_WIDTH = 16
TEXT_HEADS = 4


@dataclass(frozen=True, eq=False)
class Components:
    """The parts of a backbone that hold weights or files; the rest is configuration."""

    transformer: HunyuanVideo15Transformer3DModel
    vae: AutoencoderKLHunyuanVideo15
    text_encoder: Qwen2_5_VLTextModel
    tokenizer: Qwen2Tokenizer
    text_encoder_2: T5EncoderModel
    tokenizer_2: ByT5Tokenizer


def build_components(
    config: BackboneTrainConfig,
    captions: Iterable[str],
    *,
    vae: AutoencoderKLHunyuanVideo15 | None = None,
) -> Components:
    """Build untrained parts, but for a given VAE; `captions` teach the tokenizer its words."""
    torch.manual_seed(config.seed)
    tokenizer = build_tokenizer(captions, config.vocab_size)
    return Components(
        transformer=build_transformer(config),
        vae=build_vae(config) if vae is None else vae,
        text_encoder=build_text_encoder(config, len(tokenizer)),
        tokenizer=tokenizer,
        text_encoder_2=build_glyph_encoder(),
        tokenizer_2=ByT5Tokenizer(),
    )


def load_components(folder: Path) -> Components:
    """Load the parts of a finished backbone folder, in fp32, to train on from there."""
    encoder = Qwen2_5_VLTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)
    glyphs = T5EncoderModel.from_pretrained(folder / "text_encoder_2", dtype=torch.float32)
    return Components(
        transformer=HunyuanVideo15Transformer3DModel.from_pretrained(folder / "transformer"),
        vae=AutoencoderKLHunyuanVideo15.from_pretrained(folder / "vae").requires_grad_(False),
        text_encoder=encoder.eval().requires_grad_(False),
        tokenizer=Qwen2Tokenizer.from_pretrained(folder / "tokenizer"),
        text_encoder_2=glyphs.eval().requires_grad_(False),
        tokenizer_2=ByT5Tokenizer.from_pretrained(folder / "tokenizer_2"),
    )


def check_structure(
    config: BackboneTrainConfig, parts: Components, start: Path, *, is_fresh: bool
) -> None:
    """Refuse settings that another structure has than the parts a training starts from.

    Args:
        config: of the training.
        parts: what it starts from.
        start: where they come from.
        is_fresh: the transformer is built anew, so its own structure is free.

    Raises:
        ConfigError: names the first setting that differs.
    """
    vae, transformer = parts.vae.config, parts.transformer.config
    found: dict[str, object] = {
        "latent_channels": vae.latent_channels,
        "vae_channels": tuple(vae.block_out_channels),
        "spatial_ratio": vae.spatial_compression_ratio,
        "text_width": parts.text_encoder.config.hidden_size,
    }
    if not is_fresh:
        found |= {
            "width": transformer.num_attention_heads * transformer.attention_head_dim,
            "head_dim": transformer.attention_head_dim,
            "num_layers": transformer.num_layers,
            "mlp_ratio": transformer.mlp_ratio,
            "patch_size": transformer.patch_size,
        }
    for name, value in found.items():
        if getattr(config, name) != value:
            raise ConfigError(
                f"{name} must be that of {start} ({value}), got {getattr(config, name)}; "
                "set it so, or train from scratch"
            )


def build_tokenizer(captions: Iterable[str], vocab_size: int) -> Qwen2Tokenizer:
    """Train a byte-level BPE on captions, the system message and common words.

    The chat template starts with as many filler tokens as it takes to put the user's text where
    diffusers' pipeline expects it, so that the unchanged pipeline reads our prompts correctly.
    """
    plain = Qwen2Tokenizer(vocab={SPECIALS[0]: 0}, merges=[])
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = plain.backend_tokenizer.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    message, start = _pipeline_template()
    words = [f" {word}" for word in WORDS] * 4
    trained.train_from_iterator(
        [*captions, *[f"system\n{message}\nuser\nassistant\n"] * 50, *words], trainer
    )
    bpe = _read_bpe(trained)
    tokenizer = Qwen2Tokenizer(
        vocab=bpe[0],
        merges=bpe[1],
        additional_special_tokens=list(SPECIALS[1:]),
        model_max_length=4096,
    )
    _align_template(tokenizer, message, start)
    return tokenizer


def _read_bpe(trained: Tokenizer) -> tuple[dict[str, int], list[tuple[str, str]]]:
    model = json.loads(trained.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]


def _pipeline_template() -> tuple[str, int]:
    """Read the system message and the place of the first user token from the pipeline itself."""
    defaults = inspect.signature(HunyuanVideo15Pipeline._get_mllm_prompt_embeds).parameters
    return defaults["system_message"].default, defaults["crop_start"].default


def _align_template(tokenizer: Qwen2Tokenizer, message: str, start: int) -> None:
    head = f"<|im_start|>system\n{message}<|im_end|>\n<|im_start|>user\n"
    num_tokens = len(tokenizer(head)["input_ids"])
    if num_tokens > start:
        raise ConfigError(
            f"the system message must be at most {start} tokens, got {num_tokens}; "
            "raise vocab_size so that its words become tokens"
        )
    tokenizer.chat_template = TEMPLATE.replace("FILL", str(start - num_tokens))


def build_text_encoder(config: BackboneTrainConfig, vocab_size: int) -> Qwen2_5_VLTextModel:
    """Build a frozen random text encoder whose states tell tokens and their order.

    Only hidden state -3 is read, so 4 layers act as 2. Query and key biases dominate: head h
    attends to the token h + 1 places back, which keeps "red car" apart from "red wall" without
    any training; the weights of the values are random rotations.
    """
    encoder = Qwen2_5_VLTextModel(
        Qwen2_5_VLTextConfig(
            vocab_size=vocab_size,
            hidden_size=config.text_width,
            intermediate_size=config.text_width,
            num_hidden_layers=4,
            num_attention_heads=TEXT_HEADS,
            num_key_value_heads=TEXT_HEADS,
            max_position_embeddings=4096,
            bos_token_id=0,
            eos_token_id=0,
            rope_parameters={
                "rope_type": "default",
                "rope_theta": 100.0,
                "mrope_section": _mrope_sections(config.text_width // TEXT_HEADS // 2),
            },
        )
    )
    nn.init.normal_(encoder.embed_tokens.weight)
    for layer in encoder.layers:
        _init_text_layer(layer, config.text_width // TEXT_HEADS)
    # Rounded as it will be stored: training sees the very states that the saved folder gives.
    return cast(Qwen2_5_VLTextModel, encoder.half().float().eval().requires_grad_(False))


def _mrope_sections(num_pairs: int) -> list[int]:
    part = num_pairs // 3
    return [num_pairs - 2 * part, part, part]


def _init_text_layer(layer: nn.Module, head_dim: int, *, strength: float = 6.0) -> None:
    attention = cast(nn.Module, layer.self_attn)
    frequencies = 100.0 ** -(torch.arange(head_dim // 2) / (head_dim // 2))
    for name in ("q_proj", "k_proj"):
        nn.init.normal_(cast(nn.Linear, getattr(attention, name)).weight, std=0.02)
    query = torch.cat((torch.ones(head_dim // 2), torch.zeros(head_dim // 2))) * strength
    keys = [
        torch.cat((torch.cos(frequencies * back), torch.sin(frequencies * back))) * strength
        for back in range(1, TEXT_HEADS + 1)
    ]
    with torch.no_grad():
        cast(nn.Linear, attention.q_proj).bias.copy_(query.repeat(TEXT_HEADS))
        cast(nn.Linear, attention.k_proj).bias.copy_(torch.cat(keys))
        cast(nn.Linear, attention.v_proj).bias.zero_()
    for name in ("v_proj", "o_proj"):
        nn.init.orthogonal_(cast(nn.Linear, getattr(attention, name)).weight)
    for linear in cast(nn.Module, layer.mlp).children():
        if isinstance(linear, nn.Linear):
            nn.init.orthogonal_(linear.weight)


def build_glyph_encoder() -> T5EncoderModel:
    """Build a frozen random ByT5-style encoder; the embedded world has no written words."""
    encoder = T5EncoderModel(
        T5Config(
            vocab_size=384,
            d_model=GLYPH_WIDTH,
            d_kv=16,
            d_ff=64,
            num_layers=1,
            num_heads=2,
            tie_word_embeddings=True,
        )
    )
    return cast(T5EncoderModel, encoder.eval().requires_grad_(False))


def build_vae(config: BackboneTrainConfig) -> AutoencoderKLHunyuanVideo15:
    """Build an untrained causal video VAE: `spatial_ratio` in space, 4x in time."""
    return AutoencoderKLHunyuanVideo15(
        latent_channels=config.latent_channels,
        block_out_channels=config.vae_channels,
        layers_per_block=1,
        spatial_compression_ratio=config.spatial_ratio,
        temporal_compression_ratio=4,
        scaling_factor=1.0,
    )


def build_transformer(config: BackboneTrainConfig) -> HunyuanVideo15Transformer3DModel:
    """Build an untrained transformer with the starting values of DiT (arXiv 2212.09748, 3.2).

    Modulation and output start at zero, and so does the last glyph projection: words in quotes
    are never trained and stay neutral.
    """
    axis = config.head_dim // 8 * 3
    transformer = HunyuanVideo15Transformer3DModel(
        in_channels=2 * config.latent_channels + 1,
        out_channels=config.latent_channels,
        num_attention_heads=config.num_heads,
        attention_head_dim=config.head_dim,
        num_layers=config.num_layers,
        num_refiner_layers=1,
        mlp_ratio=config.mlp_ratio,
        patch_size=config.patch_size,
        text_embed_dim=config.text_width,
        text_embed_2_dim=GLYPH_WIDTH,
        image_embed_dim=IMAGE_WIDTH,
        rope_axes_dim=(config.head_dim - 2 * axis, axis, axis),
        target_size=config.size,
        task_type="t2v",
    )
    for module in transformer.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    zeroed: list[nn.Linear] = [
        transformer.proj_out,
        transformer.norm_out.linear,
        transformer.context_embedder_2.linear_3,
    ]
    for block in transformer.transformer_blocks:
        zeroed += [block.norm1.linear, block.norm1_context.linear]
    for linear in zeroed:
        nn.init.zeros_(linear.weight)
    nn.init.normal_(transformer.cond_type_embed.weight, std=0.02)
    return transformer


def save_folder(components: Components, folder: Path, *, flow_shift: float) -> None:
    """Save a complete `HunyuanVideo15Pipeline` folder with half-precision weights."""
    pipe = HunyuanVideo15Pipeline(
        text_encoder=components.text_encoder,
        tokenizer=components.tokenizer,
        transformer=components.transformer,
        vae=components.vae,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=flow_shift),
        text_encoder_2=components.text_encoder_2,
        tokenizer_2=components.tokenizer_2,
        guider=ClassifierFreeGuidance(guidance_scale=6.0),
    )
    pipe.to(torch.float16)
    pipe.save_pretrained(folder, safe_serialization=True)
    pipe.to(torch.float32)
    # diffusers writes down where a part was loaded from: a path of the machine that trained it.
    for path in folder.glob("*/config.json"):
        config = json.loads(path.read_text(encoding="utf-8"))
        config.pop("_name_or_path", None)
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
