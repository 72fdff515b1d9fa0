"""The dual-branch forward on diffusers' own modules (arXiv 2603.18524, section 3).

=================  ===========================  ===============  ===========================
tokens             LoRA on patch, q k v out, MLP  modulation time  RoPE (t, h, w)
=================  ===========================  ===============  ===========================
target             `subject`                    t                (0..T-1, grid)
reference view k   `reference`                  0                (k + offset, grid)
text               `subject`, text-side         t                none
=================  ===========================  ===============  ===========================

`joint` attention: one attention over [target | references | text], full and both ways.
`isolated` attention: references see references only, so their keys and values depend on nothing
else; `encode_references` computes them once and `denoise` reads them.

Work that cannot reach the output is not done: in the last block the references' q, out and MLP and
all of the text's but k and v. Nothing is written to a module, so threads may share a backbone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from dreambooth3d.errors import ConfigError
from dreambooth3d.model.lora import LoraSource
from dreambooth3d.model.positions import Rope, grid_rope, rotate
from dreambooth3d.model.texts import TextLayout, TextStates, span_mask, text_layout

ReferenceAttention = Literal["joint", "isolated"]
TextScope = Literal["prompt", "span"]

# (keys, values) of the references for every block, each (B or 1, N_ref, K, E).
ReferenceKV = tuple[tuple[Tensor, Tensor], ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Routes:
    """Which adapter acts on which tokens.

    Attributes:
        subject: on target tokens and on text; None leaves them to the backbone.
        reference: on reference tokens; None leaves them to the backbone.
        text_scope: `prompt`: the text-side delta acts on every text token; `span`: only on the
            tokens that name the subject.
    """

    subject: LoraSource | None = None
    reference: LoraSource | None = None
    text_scope: TextScope = "prompt"


@dataclass(frozen=True, kw_only=True, eq=False)
class _Pass:
    """What every block of one forward shares."""

    routes: Routes
    num_target: int
    temb_BD: Tensor
    temb_reference_1D: Tensor | None
    rope: Rope
    layout: TextLayout | None
    scope_P1: Tensor | None
    key_mask_B11L: Tensor | None


# One block's modulation, six (B, D) vectors in AdaLayerNormZero's order:
# shift, scale, gate of the attention, then of the MLP.
_Modulation = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def denoise(
    transformer: nn.Module,
    latents_BCTHW: Tensor,
    timestep_B: Tensor,
    texts: Sequence[TextStates],
    *,
    routes: Routes = Routes(),
    references_BVCHW: Tensor | None = None,
    reference_kv: ReferenceKV | None = None,
    reference_time_offset: int = 0,
    is_checkpointed: bool = False,
) -> Tensor:
    """Predict the velocity of noisy latents, (B, C, T, H, W).

    Args:
        transformer: a `HunyuanVideo15Transformer3DModel`; used, never changed.
        latents_BCTHW: noisy target latents.
        timestep_B: noise level times 1000, in 0..1000.
        texts: one encoded prompt a row.
        routes: the adapters.
        references_BVCHW: clean reference latents for `joint` attention.
        reference_kv: result of `encode_references` for `isolated` attention; at most one of both.
        reference_time_offset: added to the time index of every reference view.
        is_checkpointed: recompute each block in the backward pass to save memory.
    """
    model: Any = transformer
    if references_BVCHW is not None and reference_kv is not None:
        raise ConfigError(
            "references must be given as latents (joint) or as keys and values (isolated), "
            "got both; choose one"
        )
    x_BND = _embed_images(model, latents_BCTHW, references_BVCHW, routes)
    size = _token_grid(model, latents_BCTHW)
    layout = text_layout(texts)
    time_input = timestep_B.float()
    step = _Pass(
        routes=routes,
        num_target=size[0] * size[1] * size[2],
        temb_BD=_embed_time(model, time_input, x_BND.dtype),
        temb_reference_1D=(
            None
            if references_BVCHW is None
            else _embed_time(model, torch.zeros_like(time_input[:1]), x_BND.dtype)
        ),
        rope=_image_rope(model, size, references_BVCHW, reference_time_offset, x_BND.device),
        layout=layout,
        scope_P1=span_mask(texts, x_BND.dtype) if routes.text_scope == "span" else None,
        key_mask_B11L=_key_mask(layout, x_BND.shape[1], reference_kv),
    )
    c_PD = _embed_texts(model, texts, time_input, layout)
    num_blocks = len(model.transformer_blocks)
    for index in range(num_blocks):
        kv = None if reference_kv is None else reference_kv[index]
        arguments = (model, index, x_BND, c_PD, kv, step)
        if is_checkpointed and torch.is_grad_enabled():
            x_BND, c_PD = checkpoint(_block, *arguments, use_reentrant=False)
        else:
            x_BND, c_PD = _block(*arguments)
    x_BND = model.norm_out(x_BND, step.temb_BD)
    return _unpatchify(model, model.proj_out(x_BND), size)


def encode_references(
    transformer: nn.Module,
    references_BVCHW: Tensor,
    *,
    reference: LoraSource | None,
    reference_time_offset: int = 0,
    is_checkpointed: bool = False,
) -> ReferenceKV:
    """Compute the references' keys and values of every block for `isolated` attention.

    They depend on nothing but the views and the adapter: compute once per subject, reuse for every
    step, prompt, guidance branch and batch row.
    """
    model: Any = transformer
    routes = Routes(reference=reference)
    x_BND = _embed_images(model, None, references_BVCHW, routes)
    time_zero = torch.zeros(1, device=x_BND.device)
    size = (0, *_token_grid(model, references_BVCHW.transpose(1, 2))[1:])
    step = _Pass(
        routes=routes,
        num_target=0,
        temb_BD=_embed_time(model, time_zero, x_BND.dtype),
        temb_reference_1D=_embed_time(model, time_zero, x_BND.dtype),
        rope=_image_rope(model, size, references_BVCHW, reference_time_offset, x_BND.device),
        layout=None,
        scope_P1=None,
        key_mask_B11L=None,
    )
    cache = []
    last = len(model.transformer_blocks) - 1
    for index in range(last + 1):
        arguments = (model, index, x_BND, step, index == last)
        if is_checkpointed and torch.is_grad_enabled():
            x_BND, keys, values = checkpoint(_reference_block, *arguments, use_reentrant=False)
        else:
            x_BND, keys, values = _reference_block(*arguments)
        cache.append((keys, values))
    return tuple(cache)


def _block(
    model: Any,
    index: int,
    x_BND: Tensor,
    c_PD: Tensor,
    kv: tuple[Tensor, Tensor] | None,
    step: _Pass,
) -> tuple[Tensor, Tensor]:
    """One dual-stream block; the last one returns target tokens only."""
    block, name = model.transformer_blocks[index], f"transformer_blocks.{index}"
    is_last = index == len(model.transformer_blocks) - 1
    assert step.layout is not None
    target, reference = _image_modulation(block, step)
    text = _modulation(block.norm1_context, step.temb_BD)
    text = tuple(step.layout.spread(v) for v in text)

    h_BND = _modulate(block.norm1.norm(x_BND), target, reference, step, shift=0)
    g_PD = block.norm1_context.norm(c_PD) * (1 + text[1]) + text[0]
    live = step.num_target if is_last else x_BND.shape[1]

    q, k, v = _image_qkv(block, name, h_BND, live, step)
    text_k, text_v = _text_kv(block, name, g_PD, step)
    keys, values = [k], [v]
    if kv is not None:
        keys.append(kv[0].expand(k.shape[0], -1, -1, -1))
        values.append(kv[1].expand(k.shape[0], -1, -1, -1))
    keys.append(text_k)
    values.append(text_v)
    queries = [q] if is_last else [q, _text_q(block, name, g_PD, step)]
    out_BLD = _attend(
        torch.cat(queries, 1), torch.cat(keys, 1), torch.cat(values, 1), step.key_mask_B11L
    )

    x_BND = x_BND[:, :live]
    a_BND = _image_linear(block.attn.to_out[0], f"{name}.attn.to_out.0", out_BLD[:, :live], step)
    x_BND = x_BND + _gate(a_BND, target, reference, step, gate=2)
    h_BND = _modulate(block.norm2(x_BND), target, reference, step, shift=3)
    x_BND = x_BND + _gate(_image_mlp(block, name, h_BND, step), target, reference, step, gate=5)
    if is_last:
        return x_BND, c_PD

    a_PD = step.layout.pack(out_BLD[:, live:])
    c_PD = c_PD + text[2] * _text_linear(
        block.attn.to_add_out, f"{name}.attn.to_add_out", a_PD, step
    )
    g_PD = block.norm2_context(c_PD) * (1 + text[4]) + text[3]
    return x_BND, c_PD + text[5] * _text_mlp(block, name, g_PD, step)


def _reference_block(
    model: Any, index: int, x_BND: Tensor, step: _Pass, is_last: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """One block of the isolated reference branch; returns tokens, keys and values."""
    block, name = model.transformer_blocks[index], f"transformer_blocks.{index}"
    target, reference = _image_modulation(block, step)
    h_BND = _modulate(block.norm1.norm(x_BND), target, reference, step, shift=0)
    q, k, v = _image_qkv(block, name, h_BND, 0 if is_last else h_BND.shape[1], step)
    if is_last:
        return x_BND, k, v
    a_BND = _image_linear(
        block.attn.to_out[0], f"{name}.attn.to_out.0", _attend(q, k, v, None), step
    )
    x_BND = x_BND + _gate(a_BND, target, reference, step, gate=2)
    h_BND = _modulate(block.norm2(x_BND), target, reference, step, shift=3)
    x_BND = x_BND + _gate(_image_mlp(block, name, h_BND, step), target, reference, step, gate=5)
    return x_BND, k, v


# --- embedding ---------------------------------------------------------------------------------


def _with_condition_channels(model: Any, x_BCTHW: Tensor) -> Tensor:
    """Append the condition latent and mask channels, zero in text-to-video (method, section 2)."""
    num_missing = model.config.in_channels - x_BCTHW.shape[1]
    if num_missing < 0:
        raise ConfigError(
            f"latents must have at most {model.config.in_channels} channels, "
            f"got {x_BCTHW.shape[1]}; use latents of this backbone's own VAE"
        )
    return F.pad(x_BCTHW, (0, 0, 0, 0, 0, 0, 0, num_missing))


def _embed_images(
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


def _embed_time(model: Any, timestep_B: Tensor, dtype: torch.dtype) -> Tensor:
    """Embed noise levels (0..1000); the sinusoids are computed in fp32 and cast once."""
    projected = model.time_embed.time_proj(timestep_B)
    embedded: Tensor = model.time_embed.timestep_embedder(projected.to(dtype))
    return embedded


def _embed_texts(
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


def _token_grid(model: Any, latents_BCTHW: Tensor) -> tuple[int, int, int]:
    """Frames, rows and columns of the token grid."""
    frames, height, width = latents_BCTHW.shape[2:]
    patch = model.config.patch_size
    return frames // model.config.patch_size_t, height // patch, width // patch


def _image_rope(
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


def _key_mask(
    layout: TextLayout, num_image: int, reference_kv: ReferenceKV | None
) -> Tensor | None:
    """Mask padded text keys, (B, 1, 1, L); None when no row is padded."""
    if layout.is_even:
        return None
    valid_BS = layout.valid_BS()
    num_other = num_image + (0 if reference_kv is None else reference_kv[0][0].shape[1])
    return F.pad(valid_BS, (num_other, 0), value=True)[:, None, None, :]


def _unpatchify(model: Any, x_BNC: Tensor, size: tuple[int, int, int]) -> Tensor:
    """Tokens back to latents, (B, C, T, H, W)."""
    patch_t, patch = model.config.patch_size_t, model.config.patch_size
    x = x_BNC.unflatten(1, size).unflatten(-1, (-1, patch_t, patch, patch))
    x = x.permute(0, 4, 1, 5, 2, 6, 3, 7)
    return cast(Tensor, x.flatten(6, 7).flatten(4, 5).flatten(2, 3))


# --- modulation --------------------------------------------------------------------------------


def _modulation(norm: Any, temb_BD: Tensor) -> tuple[Tensor, ...]:
    """Six (B, D) vectors of diffusers' AdaLayerNormZero."""
    chunks: tuple[Tensor, ...] = norm.linear(norm.silu(temb_BD)).chunk(6, dim=1)
    return chunks


def _image_modulation(
    block: Any, step: _Pass
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...] | None]:
    """Modulation of target rows at time t and of references at time 0, in one product."""
    if step.temb_reference_1D is None:
        return _modulation(block.norm1, step.temb_BD), None
    both = _modulation(block.norm1, torch.cat([step.temb_BD, step.temb_reference_1D]))
    num_rows = step.temb_BD.shape[0]
    return tuple(v[:num_rows] for v in both), tuple(v[num_rows:] for v in both)


def _modulate(
    x_BND: Tensor,
    target: tuple[Tensor, ...],
    reference: tuple[Tensor, ...] | None,
    step: _Pass,
    *,
    shift: int,
) -> Tensor:
    """Scale and shift normalised tokens; `shift` is the index of the shift vector."""
    n = step.num_target
    parts = []
    if n:
        parts.append(x_BND[:, :n] * (1 + target[shift + 1][:, None]) + target[shift][:, None])
    if reference is not None and x_BND.shape[1] > n:
        r = reference
        parts.append(x_BND[:, n:] * (1 + r[shift + 1][:, None]) + r[shift][:, None])
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _gate(
    x_BND: Tensor,
    target: tuple[Tensor, ...],
    reference: tuple[Tensor, ...] | None,
    step: _Pass,
    *,
    gate: int,
) -> Tensor:
    """Multiply by the gate of each token's own branch."""
    n = step.num_target
    parts = []
    if n:
        parts.append(x_BND[:, :n] * target[gate][:, None])
    if reference is not None and x_BND.shape[1] > n:
        parts.append(x_BND[:, n:] * reference[gate][:, None])
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


# --- routed linears ----------------------------------------------------------------------------


def _image_linear(linear: nn.Module, name: str, x_BND: Tensor, step: _Pass) -> Tensor:
    """One base product over all image tokens, then each slice gets its own adapter's delta."""
    y_BND: Tensor = linear(x_BND)
    subject, reference, n = step.routes.subject, step.routes.reference, step.num_target
    has_references = x_BND.shape[1] > n
    if (subject is None or n == 0) and (reference is None or not has_references):
        return y_BND
    parts = []
    if n:
        y = y_BND[:, :n]
        parts.append(y if subject is None else y + subject.image_delta(name, x_BND[:, :n]))
    if has_references:
        y = y_BND[:, n:]
        parts.append(y if reference is None else y + reference.image_delta(name, x_BND[:, n:]))
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _text_linear(linear: nn.Module, name: str, x_PD: Tensor, step: _Pass) -> Tensor:
    """Base product plus the subject adapter's text-side delta, within its scope."""
    y_PD: Tensor = linear(x_PD)
    if step.routes.subject is None or step.layout is None:
        return y_PD
    delta = step.routes.subject.text_delta(name, x_PD, step.layout.lengths)
    return y_PD + (delta if step.scope_P1 is None else delta * step.scope_P1)


def _image_mlp(block: Any, name: str, x_BND: Tensor, step: _Pass) -> Tensor:
    up = _image_linear(block.ff.net[0].proj, f"{name}.ff.net.0.proj", x_BND, step)
    return _image_linear(block.ff.net[2], f"{name}.ff.net.2", F.gelu(up, approximate="tanh"), step)


def _text_mlp(block: Any, name: str, x_PD: Tensor, step: _Pass) -> Tensor:
    up = _text_linear(block.ff_context.net[0].proj, f"{name}.ff_context.net.0.proj", x_PD, step)
    down = block.ff_context.net[2]
    return _text_linear(down, f"{name}.ff_context.net.2", F.gelu(up, approximate="tanh"), step)


def _image_qkv(
    block: Any, name: str, h_BND: Tensor, num_queries: int, step: _Pass
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries of the first `num_queries` tokens, keys and values of all, (B, N, K, E), rotated."""
    attn, heads = block.attn, block.attn.heads
    k = _image_linear(attn.to_k, f"{name}.attn.to_k", h_BND, step).unflatten(-1, (heads, -1))
    v = _image_linear(attn.to_v, f"{name}.attn.to_v", h_BND, step).unflatten(-1, (heads, -1))
    k = rotate(attn.norm_k(k), step.rope)
    if num_queries == 0:
        return k[:, :0], k, v
    q = _image_linear(attn.to_q, f"{name}.attn.to_q", h_BND[:, :num_queries], step)
    cos, sin = step.rope
    q = attn.norm_q(q.unflatten(-1, (heads, -1)))
    return rotate(q, (cos[:num_queries], sin[:num_queries])), k, v


def _text_kv(block: Any, name: str, g_PD: Tensor, step: _Pass) -> tuple[Tensor, Tensor]:
    """Text keys and values in the padded form that attention needs, (B, S, K, E)."""
    attn, heads = block.attn, block.attn.heads
    assert step.layout is not None
    k = _text_linear(attn.add_k_proj, f"{name}.attn.add_k_proj", g_PD, step)
    v = _text_linear(attn.add_v_proj, f"{name}.attn.add_v_proj", g_PD, step)
    k, v = k.unflatten(-1, (heads, -1)), v.unflatten(-1, (heads, -1))
    k = k if attn.norm_added_k is None else attn.norm_added_k(k)
    return step.layout.unpack(k), step.layout.unpack(v)


def _text_q(block: Any, name: str, g_PD: Tensor, step: _Pass) -> Tensor:
    """Text queries in the padded form, (B, S, K, E)."""
    attn = block.attn
    assert step.layout is not None
    q = _text_linear(attn.add_q_proj, f"{name}.attn.add_q_proj", g_PD, step)
    q = q.unflatten(-1, (attn.heads, -1))
    return step.layout.unpack(q if attn.norm_added_q is None else attn.norm_added_q(q))


def _attend(q_BNKE: Tensor, k_BLKE: Tensor, v_BLKE: Tensor, mask_B11L: Tensor | None) -> Tensor:
    """Full attention, (B, N, K*E); only padded text keys are masked."""
    q, k, v = (x.transpose(1, 2) for x in (q_BNKE, k_BLKE, v_BLKE))
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask_B11L)
    return out.transpose(1, 2).flatten(2)
