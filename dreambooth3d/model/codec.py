"""Pixels to latents and back."""

from collections.abc import Sequence
from types import MethodType
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from dreambooth3d.errors import ConfigError


def to_pixels(frames_BFHWC: NDArray[np.uint8]) -> Tensor:
    """RGB frames (B, F, H, W, 3) as the VAE takes them: (B, 3, F, H, W) in -1..1, fp32."""
    return torch.from_numpy(np.array(frames_BFHWC)).permute(0, 4, 1, 2, 3).float() / 127.5 - 1


def to_frames(pixels_BCFHW: Tensor) -> NDArray[np.uint8]:
    """Pixels in -1..1 to RGB frames (B, F, H, W, 3)."""
    scaled = ((pixels_BCFHW.permute(0, 2, 3, 4, 1) + 1) * 127.5).round().clamp(0, 255)
    frames: NDArray[np.uint8] = scaled.to("cpu", torch.uint8).numpy()
    return frames


def shorten_single_frames(vae: nn.Module) -> list[nn.Module]:
    """Let a VAE see pictures as pictures; the modules that were changed.

    Before a single frame, a causal convolution puts copies of it in place of the past. That is a
    2-D convolution with the kernel summed over time, a third of the work: the same to 1e-5.
    """
    changed = []
    for module in vae.modules():
        if hasattr(module, "time_causal_padding") and "forward" not in module.__dict__:
            # A bound method, so that a copy of the VAE is bound to itself.
            module.__dict__["forward"] = MethodType(_causal_convolution, module)
            changed.append(module)
    return changed


def _causal_convolution(module: Any, x_BCTHW: Tensor) -> Tensor:
    if x_BCTHW.shape[2] > 1 or module.pad_mode != "replicate":
        return cast(Tensor, type(module).forward(module, x_BCTHW))
    conv = module.conv
    padded = F.pad(x_BCTHW[:, :, 0], module.time_causal_padding[:4], mode=module.pad_mode)
    frame = F.conv2d(
        padded, conv.weight.sum(2), conv.bias, stride=conv.stride[1:], dilation=conv.dilation[1:]
    )
    return frame[:, :, None]


class LatentCodec:
    """The backbone's VAE with its scaling applied.

    Samples go one by one: `AutoencoderKLHunyuanVideo15` raises for a batch of more than one, and a
    sample's result must not depend on its neighbours.

    Args:
        vae: an `AutoencoderKLHunyuanVideo15`, frozen.
        patch_size: latents of one transformer token along a side; pictures must fill whole tokens.
    """

    def __init__(self, vae: Any, *, patch_size: int = 1) -> None:
        self.vae = vae
        shorten_single_frames(vae)
        self.scaling_factor = float(vae.config.scaling_factor)
        self.num_channels = int(vae.config.latent_channels)
        self.spatial_ratio = int(vae.spatial_compression_ratio)
        self.temporal_ratio = int(vae.temporal_compression_ratio)
        self.token_side = self.spatial_ratio * patch_size

    def latent_size(self, num_frames: int, height: int, width: int) -> tuple[int, int, int]:
        """Latent frames, rows and columns of a clip.

        Raises:
            ConfigError: the clip's shape is not one the backbone can hold.
        """
        if num_frames < 1 or (num_frames - 1) % self.temporal_ratio:
            raise ConfigError(
                f"num_frames must be {self.temporal_ratio}n + 1, got {num_frames}; "
                f"use {self.nearest_num_frames(num_frames)}"
            )
        for what, value in (("height", height), ("width", width)):
            if value < self.token_side or value % self.token_side:
                raise ConfigError(
                    f"{what} must be a positive multiple of {self.token_side}, got {value}; "
                    f"use {max(1, round(value / self.token_side)) * self.token_side}"
                )
        frames = (num_frames - 1) // self.temporal_ratio + 1
        return frames, height // self.spatial_ratio, width // self.spatial_ratio

    def nearest_num_frames(self, num_frames: int) -> int:
        """The nearest frame count the VAE can hold, at least 1."""
        ratio = self.temporal_ratio
        return max(0, round((num_frames - 1) / ratio)) * ratio + 1

    @torch.no_grad()
    def encode(self, pixels_BCFHW: Tensor) -> Tensor:
        """Encode pixels in -1..1 to scaled latents (B, C, T, H, W): the posterior's mean."""
        parameter = next(self.vae.parameters())
        rows = [
            self.vae.encode(row[None].to(parameter.device, parameter.dtype)).latent_dist.mode()
            for row in pixels_BCFHW
        ]
        return torch.cat(rows).float() * self.scaling_factor

    def encode_images(self, images: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Encode RGB pictures of one size, each (H, W, 3), as one-frame clips: (N, C, H, W)."""
        return self.encode(to_pixels(np.stack(images)[:, None]))[:, :, 0]

    @torch.no_grad()
    def decode(self, latents_BCTHW: Tensor) -> Tensor:
        """Decode scaled latents to pixels in -1..1, (B, 3, F, H, W), fp32, clamped."""
        parameter = next(self.vae.parameters())
        rows = [
            self.vae.decode(
                (row[None] / self.scaling_factor).to(parameter.dtype), return_dict=False
            )
            for row in latents_BCTHW.to(parameter.device)
        ]
        return torch.cat([row[0] for row in rows]).float().clamp(-1, 1)
