import pytest
import torch

from dreambooth3d.backbone.components import build_vae
from dreambooth3d.backbone.config import BackboneTrainConfig
from dreambooth3d.errors import ConfigError
from dreambooth3d.model.codec import LatentCodec


def codec(patch_size: int) -> LatentCodec:
    torch.manual_seed(0)
    config = BackboneTrainConfig(vae_channels=(8, 16, 32), spatial_ratio=4)
    return LatentCodec(build_vae(config).requires_grad_(False), patch_size=patch_size)


def test_pictures_fill_whole_tokens() -> None:
    assert codec(1).latent_size(5, 36, 32) == (2, 9, 8)
    assert codec(2).latent_size(5, 40, 32) == (2, 10, 8)
    with pytest.raises(ConfigError, match="height must be a positive multiple of 8, got 36; use"):
        codec(2).latent_size(5, 36, 32)


def test_latents_have_the_promised_size() -> None:
    held = codec(2)
    latents = held.encode(torch.zeros(1, 3, 5, 40, 32))
    assert latents.shape[2:] == held.latent_size(5, 40, 32)
    assert held.decode(latents).shape == (1, 3, 5, 40, 32)
