"""Rotary positions of target and reference tokens (method table, section 3)."""

from typing import cast

import torch
from diffusers.models.embeddings import get_1d_rotary_pos_embed
from torch import Tensor, nn

Rope = tuple[Tensor, Tensor]


def grid_rope(rope: nn.Module, times: Tensor, height: int, width: int) -> Rope:
    """Build cos and sin for a (t, h, w) grid of tokens, each (len(times) * h * w, E), in fp32.

    Args:
        rope: diffusers' `HunyuanVideo15RotaryPosEmbed`, asked for its axes and theta only.
        times: time index of every latent frame or reference view.
        height: token rows.
        width: token columns.
    """
    axes = torch.meshgrid(
        times.float(),
        torch.arange(height, dtype=torch.float32, device=times.device),
        torch.arange(width, dtype=torch.float32, device=times.device),
        indexing="ij",
    )
    dims = cast("list[int]", rope.rope_dim)
    theta = cast(float, rope.theta)
    parts = [
        get_1d_rotary_pos_embed(dim, axis.reshape(-1), theta, use_real=True)
        for dim, axis in zip(dims, axes, strict=True)
    ]
    return torch.cat([p[0] for p in parts], dim=1), torch.cat([p[1] for p in parts], dim=1)


def rotate(x_BNKE: Tensor, rope: Rope) -> Tensor:
    """Rotate queries or keys in fp32 and cast back once (pairs of neighbouring channels)."""
    cos, sin = (f[None, :, None, :] for f in rope)
    x = x_BNKE.float()
    even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack((-odd, even), dim=-1).flatten(-2)
    return torch.addcmul(x * cos, turned, sin).to(x_BNKE.dtype)
