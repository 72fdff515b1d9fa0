"""Tokens of one forward: patches, noise levels, packed texts, positions, and back to latents."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from dreambooth3d.errors import ConfigError
from dreambooth3d.model.lora import LoraSource
from dreambooth3d.model.positions import Rope, grid_rope
from dreambooth3d.model.routing import Routes
from dreambooth3d.model.texts import TextLayout, TextStates


def _with_condition_channels(model: Any, x_BCTHW: Tensor) -> Tensor:
    """Append the condition latent and mask channels, zero in text-to-video (method, section 2)."""
    num_missing = model.config.in_channels - x_BCTHW.shape[1]
    if num_missing < 0:
        raise ConfigError(
            f"latents must have at most {model.config.in_channels} channels, "
            f"got {x_BCTHW.shape[1]}; use latents of this backbone's own VAE"
        )
    return F.pad(x_BCTHW, (0, 0, 0, 0, 0, 0, 0, num_missing))


def embed_images(
    model: Any, latents_BCTHW: Tensor | None, references_BVCHW: Tensor | None, routes: Routes
) -> Tensor:
    """Embed [target | references] into tokens, one base product, each with its own delta."""
    parts: list[tuple[Tensor, LoraSource | None]] = []
    if latents_BCTHW is not None:
        parts.append((_with_condition_channels(model, latents_BCTHW), routes.subject))
    if references_BVCHW is not None:
        references = _with_condition_channels(model, references_BVCHW.transpose(1, 2))
        parts.append((references, routes.reference))
    x_BND: Tensor = model.x_embedder(torch.cat([x for x, _ in parts], dim=2))
    if all(source is None for _, source in parts):
        return x_BND
    patch_t, patch = model.config.patch_size_t, model.config.patch_size
    counts = [x.shape[2] // patch_t * (x.shape[3] // patch) * (x.shape[4] // patch)
              for x, _ in parts]  # fmt: skip
    bases = x_BND.split(counts, dim=1)
    return torch.cat(
        [
            base if source is None else base + source.patch_delta(x)
            for base, (x, source) in zip(bases, parts, strict=True)
        ],
        dim=1,
    )


def embed_time(model: Any, timestep_B: Tensor, dtype: torch.dtype) -> Tensor:
    """Embed noise levels (0..1000); the sinusoids are computed in fp32 and cast once."""
    projected = model.time_embed.time_proj(timestep_B)
    embedded: Tensor = model.time_embed.timestep_embedder(projected.to(dtype))
    return embedded


def embed_texts(
    model: Any, texts: Sequence[TextStates], timestep_B: Tensor, layout: TextLayout
) -> Tensor:
    """Refine and pack the text tokens, (P, D).

    The refiner attends within a prompt, so it alone sees a padded form, with padded keys masked:
    one call whatever the lengths, as every rank must make the same calls under ZeRO-3.
    """
    states = TextLayout(lengths=tuple(t.states_SD.shape[0] for t in texts), device=layout.device)
    x_BSD = states.unpack(torch.cat([t.states_SD for t in texts]))
    valid_BS = None if states.is_even else states.valid_BS()
    count_B1 = torch.tensor(states.lengths, device=layout.device, dtype=x_BSD.dtype)[:, None]
    pooled_BD = x_BSD.sum(dim=1) / count_B1
    refiner = model.context_embedder
    temb_BD = refiner.time_text_embed(timestep_B, pooled_BD)
    x_BSD = refiner.proj_in(x_BSD)
    mask = None if valid_BS is None else valid_BS[:, None, None, :]
    for block in refiner.token_refiner.refiner_blocks:
        x_BSD = block(x_BSD, temb_BD, mask)
    kinds_2D = model.cond_type_embed(torch.arange(2, device=layout.device))
    rows = (states.pack(x_BSD) + kinds_2D[0]).split(list(states.lengths))
    empty = x_BSD.new_zeros(0, model.config.text_embed_2_dim)
    glyphs = [empty if t.glyphs_GD is None else t.glyphs_GD for t in texts]
    # One call even without a quoted word, for the same reason as above.
    embedded = model.context_embedder_2(torch.cat(glyphs)) + kinds_2D[1]
    quoted = embedded.split([len(g) for g in glyphs])
    return torch.cat([torch.cat(pair) for pair in zip(quoted, rows, strict=True)])


def token_grid(model: Any, latents_BCTHW: Tensor) -> tuple[int, int, int]:
    """Frames, rows and columns of the token grid."""
    frames, height, width = latents_BCTHW.shape[2:]
    patch = model.config.patch_size
    return frames // model.config.patch_size_t, height // patch, width // patch


def image_rope(
    model: Any,
    size: tuple[int, int, int],
    references_BVCHW: Tensor | None,
    offset: int,
    device: torch.device,
) -> Rope:
    """Positions of [target | references]: view k sits at time k + offset on the same grid."""
    times = torch.arange(size[0], device=device)
    if references_BVCHW is not None:
        views = torch.arange(references_BVCHW.shape[1], device=device) + offset
        times = torch.cat([times, views])
    return grid_rope(model.rope, times, size[1], size[2])


def key_mask(layout: TextLayout, num_other: int) -> Tensor | None:
    """Mask padded text keys behind `num_other` keys, (B, 1, 1, L); None when no row is padded."""
    if layout.is_even:
        return None
    valid_BS = layout.valid_BS()
    return F.pad(valid_BS, (num_other, 0), value=True)[:, None, None, :]


def unpatchify(model: Any, x_BNC: Tensor, size: tuple[int, int, int]) -> Tensor:
    """Tokens back to latents, (B, C, T, H, W)."""
    patch_t, patch = model.config.patch_size_t, model.config.patch_size
    x = x_BNC.unflatten(1, size).unflatten(-1, (-1, patch_t, patch, patch))
    x = x.permute(0, 4, 1, 5, 2, 6, 3, 7)
    return cast(Tensor, x.flatten(6, 7).flatten(4, 5).flatten(2, 3))
