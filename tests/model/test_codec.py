from copy import deepcopy

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


@pytest.mark.parametrize("num_frames", [1, 5])
def test_the_codec_gives_what_diffusers_own_vae_gives(num_frames: int) -> None:
    held = codec(1)
    plain = codec(1).vae
    for module in plain.modules():
        module.__dict__.pop("forward", None)
    pixels = torch.rand(1, 3, num_frames, 32, 32) * 2 - 1
    expected = plain.encode(pixels).latent_dist.mode() * held.scaling_factor
    latents = held.encode(pixels)
    torch.testing.assert_close(latents, expected, atol=1e-5, rtol=1e-4)
    frames = plain.decode(expected / held.scaling_factor).sample.clamp(-1, 1)
    torch.testing.assert_close(held.decode(latents), frames, atol=1e-4, rtol=1e-4)


def test_a_copied_vae_runs_on_its_own_weights() -> None:
    held = codec(1)
    other = deepcopy(held.vae)
    pixels = torch.rand(1, 3, 1, 32, 32)
    before = held.encode(pixels)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    assert torch.equal(held.encode(pixels), before)
    assert not other.encode(pixels).latent_dist.mode().any()
