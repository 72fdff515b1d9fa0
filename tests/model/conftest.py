from collections.abc import Callable

import pytest
import torch
from diffusers import HunyuanVideo15Transformer3DModel

from dreambooth3d.model.lora import LoraAdapter, Role
from dreambooth3d.model.texts import TextStates

TEXT_DIM, GLYPH_DIM, CHANNELS = 24, 20, 4


@pytest.fixture(scope="session")
def transformer() -> HunyuanVideo15Transformer3DModel:
    torch.manual_seed(0)
    model = HunyuanVideo15Transformer3DModel(
        in_channels=2 * CHANNELS + 1,
        out_channels=CHANNELS,
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=3,
        num_refiner_layers=2,
        text_embed_dim=TEXT_DIM,
        text_embed_2_dim=GLYPH_DIM,
        image_embed_dim=8,
        rope_axes_dim=(4, 6, 6),
        task_type="t2v",
    )
    return model.requires_grad_(False).eval()


@pytest.fixture
def make_lora(transformer: torch.nn.Module) -> Callable[..., LoraAdapter]:
    def make(role: Role, seed: int, *, rank: int = 4, is_zero: bool = False) -> LoraAdapter:
        lora = LoraAdapter(transformer, role=role, rank=rank, seed=seed)
        if not is_zero:
            generator = torch.Generator().manual_seed(seed)
            for name, weight in lora.named_weights():
                if "lora_B" in name:
                    drawn = torch.randn(weight.shape, generator=generator) * 0.2
                    weight.data.copy_(drawn)
        return lora

    return make


def text(num_tokens: int, seed: int, *, num_glyphs: int = 0) -> TextStates:
    generator = torch.Generator().manual_seed(seed)
    glyphs = torch.randn(num_glyphs, GLYPH_DIM, generator=generator) if num_glyphs else None
    return TextStates(torch.randn(num_tokens, TEXT_DIM, generator=generator), glyphs, span=(1, 3))


def latents(batch: int, *, frames: int = 2, seed: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, CHANNELS, frames, 4, 6, generator=generator)


def references(batch: int, views: int = 3, *, seed: int = 9) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, views, CHANNELS, 4, 6, generator=generator)
