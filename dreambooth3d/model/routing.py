"""Which adapter, modulation and positions act on which tokens of one forward.

The functions here are one block's parts; `forward.py` puts them together.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dreambooth3d.model.choices import TextScope
from dreambooth3d.model.lora import LoraSource
from dreambooth3d.model.positions import Rope, rotate
from dreambooth3d.model.texts import TextLayout

_Vectors = tuple[Tensor, ...]

# Names of the block and of the linear in it. They are joined only where an adapter acts: a compiled
# block that has none serves every block of its shape.
LinearName = tuple[str, str]


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


NO_ADAPTERS = Routes()


@dataclass(frozen=True, kw_only=True, eq=False)
class Pass:
    """What every block of one forward shares."""

    routes: Routes
    num_target: int
    temb_BD: Tensor
    temb_reference_1D: Tensor | None
    rope: Rope
    layout: TextLayout | None
    scope_P1: Tensor | None
    key_mask_B11L: Tensor | None


def modulation(norm: Any, temb_BD: Tensor) -> tuple[Tensor, ...]:
    """Six (B, D) vectors of diffusers' AdaLayerNormZero."""
    chunks: tuple[Tensor, ...] = norm.linear(norm.silu(temb_BD)).chunk(6, dim=1)
    return chunks


def image_modulation(
    block: Any, step: Pass
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...] | None]:
    """Modulation of target rows at time t and of references at time 0, in one product."""
    if step.temb_reference_1D is None:
        return modulation(block.norm1, step.temb_BD), None
    both = modulation(block.norm1, torch.cat([step.temb_BD, step.temb_reference_1D]))
    num_rows = step.temb_BD.shape[0]
    return tuple(v[:num_rows] for v in both), tuple(v[num_rows:] for v in both)


def modulate(
    x_BND: Tensor,
    target: tuple[Tensor, ...],
    reference: tuple[Tensor, ...] | None,
    step: Pass,
    *,
    shift: int,
) -> Tensor:
    """Scale and shift normalised tokens; `shift` is the index of the shift vector."""
    parts = [
        x * (1 + vectors[shift + 1][:, None]) + vectors[shift][:, None]
        for x, vectors in _branches(x_BND, target, reference, step)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def gate(
    x_BND: Tensor,
    target: tuple[Tensor, ...],
    reference: tuple[Tensor, ...] | None,
    step: Pass,
    *,
    gate: int,
) -> Tensor:
    """Multiply by the gate of each token's own branch."""
    parts = [x * vectors[gate][:, None] for x, vectors in _branches(x_BND, target, reference, step)]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _branches(
    x_BND: Tensor, target: _Vectors, reference: _Vectors | None, step: Pass
) -> list[tuple[Tensor, _Vectors]]:
    """Target and reference tokens, those that there are, each with its modulation."""
    x_BnD, x_BmD = _cut(x_BND, step)
    found = [] if x_BnD is None else [(x_BnD, target)]
    if x_BmD is not None and reference is not None:
        found.append((x_BmD, reference))
    return found


def _cut(x_BND: Tensor, step: Pass) -> tuple[Tensor | None, Tensor | None]:
    """Cut tokens into target and references; None where there are none.

    By a split: the backward pass of two slices fills the whole tensor with zeros for each.
    """
    n = step.num_target
    if n == 0:
        return None, x_BND
    if x_BND.shape[1] == n:
        return x_BND, None
    target, references = x_BND.split([n, x_BND.shape[1] - n], dim=1)
    return target, references


def image_linear(linear: nn.Module, name: LinearName, x_BND: Tensor, step: Pass) -> Tensor:
    """One base product over all image tokens, then each slice gets its own adapter's delta."""
    y_BND: Tensor = linear(x_BND)
    sources = (step.routes.subject, step.routes.reference)
    cut = list(zip(_cut(y_BND, step), _cut(x_BND, step), sources, strict=True))
    if all(source is None for y, _, source in cut if y is not None):
        return y_BND
    full_name = ".".join(name)
    parts = [
        y if source is None or x is None else y + source.image_delta(full_name, x)
        for y, x, source in cut
        if y is not None
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def text_linear(linear: nn.Module, name: LinearName, x_PD: Tensor, step: Pass) -> Tensor:
    """Base product plus the subject adapter's text-side delta, within its scope."""
    y_PD: Tensor = linear(x_PD)
    if step.routes.subject is None or step.layout is None:
        return y_PD
    delta = step.routes.subject.text_delta(".".join(name), x_PD, step.layout.lengths)
    return y_PD + (delta if step.scope_P1 is None else delta * step.scope_P1)


def image_mlp(block: Any, name: str, x_BND: Tensor, step: Pass) -> Tensor:
    """MLP of the image stream, routed."""
    up = image_linear(block.ff.net[0].proj, (name, "ff.net.0.proj"), x_BND, step)
    return image_linear(block.ff.net[2], (name, "ff.net.2"), F.gelu(up, approximate="tanh"), step)


def text_mlp(block: Any, name: str, x_PD: Tensor, step: Pass) -> Tensor:
    """MLP of the text stream."""
    up = text_linear(block.ff_context.net[0].proj, (name, "ff_context.net.0.proj"), x_PD, step)
    down = block.ff_context.net[2]
    return text_linear(down, (name, "ff_context.net.2"), F.gelu(up, approximate="tanh"), step)


def image_qkv(
    block: Any, name: str, h_BND: Tensor, num_queries: int, step: Pass
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries of the first `num_queries` tokens, keys and values of all, (B, N, K, E), rotated."""
    attn, heads = block.attn, block.attn.heads
    k = image_linear(attn.to_k, (name, "attn.to_k"), h_BND, step).unflatten(-1, (heads, -1))
    v = image_linear(attn.to_v, (name, "attn.to_v"), h_BND, step).unflatten(-1, (heads, -1))
    k = rotate(attn.norm_k(k), step.rope)
    if num_queries == 0:
        return k[:, :0], k, v
    q = image_linear(attn.to_q, (name, "attn.to_q"), h_BND[:, :num_queries], step)
    cos, sin = step.rope
    q = attn.norm_q(q.unflatten(-1, (heads, -1)))
    return rotate(q, (cos[:num_queries], sin[:num_queries])), k, v


def text_kv(block: Any, name: str, g_PD: Tensor, step: Pass) -> tuple[Tensor, Tensor]:
    """Text keys and values in the padded form that attention needs, (B, S, K, E)."""
    attn, heads = block.attn, block.attn.heads
    assert step.layout is not None
    k = text_linear(attn.add_k_proj, (name, "attn.add_k_proj"), g_PD, step)
    v = text_linear(attn.add_v_proj, (name, "attn.add_v_proj"), g_PD, step)
    k, v = k.unflatten(-1, (heads, -1)), v.unflatten(-1, (heads, -1))
    k = k if attn.norm_added_k is None else attn.norm_added_k(k)
    return step.layout.unpack(k), step.layout.unpack(v)


def text_q(block: Any, name: str, g_PD: Tensor, step: Pass) -> Tensor:
    """Text queries in the padded form, (B, S, K, E)."""
    attn = block.attn
    assert step.layout is not None
    q = text_linear(attn.add_q_proj, (name, "attn.add_q_proj"), g_PD, step)
    q = q.unflatten(-1, (attn.heads, -1))
    return step.layout.unpack(q if attn.norm_added_q is None else attn.norm_added_q(q))


def attend(q_BNKE: Tensor, k_BLKE: Tensor, v_BLKE: Tensor, mask_B11L: Tensor | None) -> Tensor:
    """Full attention, (B, N, K*E); only padded text keys are masked."""
    q, k, v = (x.transpose(1, 2) for x in (q_BNKE, k_BLKE, v_BLKE))
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask_B11L)
    return out.transpose(1, 2).flatten(2)
