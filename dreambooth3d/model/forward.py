"""The dual-branch forward on diffusers' own modules (arXiv 2603.18524, section 3).

=================  =============================  ===============  ====================
tokens             LoRA on patch, q k v out, MLP  modulation time  RoPE (t, h, w)
=================  =============================  ===============  ====================
target             `subject`                      t                (0..T-1, grid)
reference view k   `reference`                    0                (k + offset, grid)
text               `subject`, text-side           t                none
=================  =============================  ===============  ====================

`joint` attention: one attention over [target | references | text], full and both ways.
`isolated` attention: references see references only, so their keys and values depend on nothing
else; `encode_references` computes them once and `denoise` reads them.

Work that cannot reach the output is not done: in the last block the references' q, out and MLP and
all of the text's but k and v. Nothing is written to a module, so threads may share a backbone.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dreambooth3d.errors import ConfigError
from dreambooth3d.model.embedding import (
    embed_images,
    embed_texts,
    embed_time,
    image_rope,
    key_mask,
    token_grid,
    unpatchify,
)
from dreambooth3d.model.lora import LoraSource
from dreambooth3d.model.routing import (
    NO_ADAPTERS,
    Pass,
    Routes,
    attend,
    gate,
    image_linear,
    image_mlp,
    image_modulation,
    image_qkv,
    modulate,
    modulation,
    text_kv,
    text_linear,
    text_mlp,
    text_q,
)
from dreambooth3d.model.texts import TextStates, span_mask, text_layout

# (keys, values) of the references for every block, each (B or 1, N_ref, K, E).
ReferenceKV = tuple[tuple[Tensor, Tensor], ...]


def denoise(
    transformer: nn.Module,
    latents_BCTHW: Tensor,
    timestep_B: Tensor,
    texts: Sequence[TextStates],
    *,
    routes: Routes = NO_ADAPTERS,
    references_BVCHW: Tensor | None = None,
    reference_kv: ReferenceKV | None = None,
    reference_time_offset: int = 0,
    is_checkpointed: bool = False,
    is_compiled: bool = False,
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
        is_compiled: fuse each block's small operations with torch.compile, once for every shape of
            latents; rounds a little differently.
    """
    model: Any = transformer
    if references_BVCHW is not None and reference_kv is not None:
        raise ConfigError(
            "references must be given as latents (joint) or as keys and values (isolated), "
            "got both; choose one"
        )
    x_BND = embed_images(model, latents_BCTHW, references_BVCHW, routes)
    size = token_grid(model, latents_BCTHW)
    layout = text_layout(texts)
    num_cached = 0 if reference_kv is None else reference_kv[0][0].shape[1]
    time_input = timestep_B.float()
    step = Pass(
        routes=routes,
        num_target=size[0] * size[1] * size[2],
        temb_BD=embed_time(model, time_input, x_BND.dtype),
        temb_reference_1D=(
            None
            if references_BVCHW is None
            else embed_time(model, torch.zeros_like(time_input[:1]), x_BND.dtype)
        ),
        rope=image_rope(model, size, references_BVCHW, reference_time_offset, x_BND.device),
        layout=layout,
        scope_P1=span_mask(texts, x_BND.dtype) if routes.text_scope == "span" else None,
        key_mask_B11L=key_mask(layout, x_BND.shape[1] + num_cached),
    )
    c_PD = embed_texts(model, texts, time_input, layout)
    num_blocks = len(model.transformer_blocks)
    run_block = _compiled_block if is_compiled else _block
    for index, block in enumerate(model.transformer_blocks):
        kv = None if reference_kv is None else reference_kv[index]
        is_last = index == num_blocks - 1
        if is_compiled:
            torch._dynamo.maybe_mark_dynamic(c_PD, 0)
        arguments = (block, f"transformer_blocks.{index}", is_last, x_BND, c_PD, kv, step)
        if is_checkpointed and torch.is_grad_enabled():
            x_BND, c_PD = checkpoint(run_block, *arguments, use_reentrant=False)
        else:
            x_BND, c_PD = run_block(*arguments)
    x_BND = model.norm_out(x_BND, step.temb_BD)
    return unpatchify(model, model.proj_out(x_BND), size)


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
    x_BND = embed_images(model, None, references_BVCHW, routes)
    time_zero = torch.zeros(1, device=x_BND.device)
    size = (0, *token_grid(model, references_BVCHW.transpose(1, 2))[1:])
    step = Pass(
        routes=routes,
        num_target=0,
        temb_BD=embed_time(model, time_zero, x_BND.dtype),
        temb_reference_1D=embed_time(model, time_zero, x_BND.dtype),
        rope=image_rope(model, size, references_BVCHW, reference_time_offset, x_BND.device),
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
    block: Any,
    name: str,
    is_last: bool,
    x_BND: Tensor,
    c_PD: Tensor,
    kv: tuple[Tensor, Tensor] | None,
    step: Pass,
) -> tuple[Tensor, Tensor]:
    """One dual-stream block; the last one returns target tokens only."""
    assert step.layout is not None
    target, reference = image_modulation(block, step)
    text = modulation(block.norm1_context, step.temb_BD)
    text = tuple(step.layout.spread(v, len(c_PD)) for v in text)

    h_BND = modulate(block.norm1.norm(x_BND), target, reference, step, shift=0)
    g_PD = block.norm1_context.norm(c_PD) * (1 + text[1]) + text[0]
    live = step.num_target if is_last else x_BND.shape[1]

    q, k, v = image_qkv(block, name, h_BND, live, step)
    text_k, text_v = text_kv(block, name, g_PD, step)
    keys, values = [k], [v]
    if kv is not None:
        keys.append(kv[0].expand(k.shape[0], -1, -1, -1))
        values.append(kv[1].expand(k.shape[0], -1, -1, -1))
    keys.append(text_k)
    values.append(text_v)
    queries = [q] if is_last else [q, text_q(block, name, g_PD, step)]
    out_BLD = attend(
        torch.cat(queries, 1), torch.cat(keys, 1), torch.cat(values, 1), step.key_mask_B11L
    )

    x_BND = x_BND[:, :live] if is_last else x_BND
    a_BND = image_linear(block.attn.to_out[0], (name, "attn.to_out.0"), out_BLD[:, :live], step)
    x_BND = x_BND + gate(a_BND, target, reference, step, gate=2)
    h_BND = modulate(block.norm2(x_BND), target, reference, step, shift=3)
    x_BND = x_BND + gate(image_mlp(block, name, h_BND, step), target, reference, step, gate=5)
    if is_last:
        return x_BND, c_PD

    a_PD = step.layout.pack(out_BLD[:, live:])
    c_PD = c_PD + text[2] * text_linear(
        block.attn.to_add_out, (name, "attn.to_add_out"), a_PD, step
    )
    g_PD = block.norm2_context(c_PD) * (1 + text[4]) + text[3]
    return x_BND, c_PD + text[5] * text_mlp(block, name, g_PD, step)


# One form for each shape of image tokens; `denoise` says that the length of the texts may vary.
_compiled_block = torch.compile(_block, dynamic=False)


def _reference_block(
    model: Any, index: int, x_BND: Tensor, step: Pass, is_last: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """One block of the isolated reference branch; returns tokens, keys and values."""
    block, name = model.transformer_blocks[index], f"transformer_blocks.{index}"
    target, reference = image_modulation(block, step)
    h_BND = modulate(block.norm1.norm(x_BND), target, reference, step, shift=0)
    q, k, v = image_qkv(block, name, h_BND, 0 if is_last else h_BND.shape[1], step)
    if is_last:
        return x_BND, k, v
    a_BND = image_linear(block.attn.to_out[0], (name, "attn.to_out.0"), attend(q, k, v, None), step)
    x_BND = x_BND + gate(a_BND, target, reference, step, gate=2)
    h_BND = modulate(block.norm2(x_BND), target, reference, step, shift=3)
    x_BND = x_BND + gate(image_mlp(block, name, h_BND, step), target, reference, step, gate=5)
    return x_BND, k, v
