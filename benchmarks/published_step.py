"""Our own rendering of the published procedure's step, to be timed against (method, sections 2-3).

What it does as published: padded text slots go through every block and are masked by a dense
boolean matrix; both adapters are computed on all image tokens and one is multiplied away; no work
of the last block is left out; one target a step. Text encoder and VAE are left out on both sides.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dreambooth3d.diffusion.path import interpolate, velocity_loss
from dreambooth3d.model.embedding import embed_time, image_rope, token_grid, unpatchify
from dreambooth3d.model.lora import LoraAdapter
from dreambooth3d.model.positions import rotate
from dreambooth3d.model.routing import modulation
from dreambooth3d.model.texts import TextStates
from dreambooth3d.training.task import TrainBatch


class PublishedTask(nn.Module):
    """A batch in, a loss out, by the published procedure; the adapters are shared with ours.

    Args:
        transformer: the backbone.
        subject, reference: both learn.
        num_slots: text slots, and slots of quoted words, that are always carried.
    """

    def __init__(
        self,
        transformer: nn.Module,
        *,
        subject: LoraAdapter,
        reference: LoraAdapter,
        num_slots: tuple[int, int],
    ) -> None:
        super().__init__()
        self.transformer: Any = transformer
        self.subject = subject
        self.reference = reference
        self._num_slots = num_slots

    def forward(self, batch: TrainBatch) -> Tensor:
        """Mean loss over the rows."""
        x = interpolate(batch.target_BCTHW, batch.noise_BCTHW, batch.sigma_B)
        assert batch.references_BVCHW is not None
        views = batch.references_BVCHW.expand(len(x), -1, -1, -1, -1)
        velocity = self._velocity(x, batch.sigma_B * 1000, batch.texts, views)
        return velocity_loss(velocity, batch.target_BCTHW, batch.noise_BCTHW).mean()

    def _velocity(
        self, x_BCTHW: Tensor, time_B: Tensor, texts: Sequence[TextStates], views_BVCHW: Tensor
    ) -> Tensor:
        model = self.transformer
        size = token_grid(model, x_BCTHW)
        num_target = size[0] * size[1] * size[2]
        latents = torch.cat([x_BCTHW, views_BVCHW.transpose(1, 2)], dim=2)
        latents = F.pad(latents, (0, 0, 0, 0, 0, 0, 0, model.config.in_channels - latents.shape[1]))
        x = model.x_embedder(latents)
        is_target_N1 = (torch.arange(x.shape[1]) < num_target).to(x.dtype)[:, None]
        x = x + self.subject.patch_delta(latents) * is_target_N1
        x = x + self.reference.patch_delta(latents) * (1 - is_target_N1)
        c, valid_BS = self._texts(texts, time_B)
        valid_BL = F.pad(valid_BS, (x.shape[1], 0), value=True)
        mask = valid_BL[:, None, None, :] & valid_BL[:, None, :, None]
        at_time = embed_time(model, time_B, x.dtype)
        at_zero = embed_time(model, torch.zeros_like(time_B), x.dtype)
        rope = image_rope(model, size, views_BVCHW, 0, x.device)
        for index in range(len(model.transformer_blocks)):
            x, c = self._block(index, x, c, (at_time, at_zero), rope, mask, is_target_N1)
        x = model.norm_out(x[:, :num_target], at_time)
        return unpatchify(model, model.proj_out(x), size)

    def _texts(self, texts: Sequence[TextStates], time_B: Tensor) -> tuple[Tensor, Tensor]:
        """Text tokens with their padding, valid ones first, and which of them are valid."""
        model, (num_text, num_glyphs) = self.transformer, self._num_slots
        states = torch.stack(
            [F.pad(t.states_SD, (0, 0, 0, num_text - len(t.states_SD))) for t in texts]
        )
        lengths = torch.tensor([len(t.states_SD) for t in texts])
        valid = torch.arange(num_text)[None] < lengths[:, None]
        c = model.context_embedder(states, time_B, valid)
        kinds = model.cond_type_embed(torch.arange(2))
        glyphs = c.new_zeros(len(texts), num_glyphs, model.config.text_embed_2_dim)
        c = torch.cat([c + kinds[0], model.context_embedder_2(glyphs) + kinds[1]], dim=1)
        return c, F.pad(valid, (0, num_glyphs))

    def _image(self, linear: nn.Module, name: str, x: Tensor, is_target_N1: Tensor) -> Tensor:
        """Both adapters on all tokens."""
        y: Tensor = linear(x)
        y = y + self.subject.image_delta(name, x) * is_target_N1
        return y + self.reference.image_delta(name, x) * (1 - is_target_N1)

    def _text(self, linear: nn.Module, name: str, x: Tensor) -> Tensor:
        y: Tensor = linear(x)
        return y + self.subject.text_delta(name, x, ())

    def _block(
        self,
        index: int,
        x: Tensor,
        c: Tensor,
        times: tuple[Tensor, Tensor],
        rope: tuple[Tensor, Tensor],
        mask: Tensor,
        is_target_N1: Tensor,
    ) -> tuple[Tensor, Tensor]:
        block, name = self.transformer.transformer_blocks[index], f"transformer_blocks.{index}."
        attn, heads = block.attn, block.attn.heads
        at_time, at_zero = (modulation(block.norm1, time) for time in times)
        image = [
            torch.where(is_target_N1 > 0, a[:, None], b[:, None])
            for a, b in zip(at_time, at_zero, strict=True)
        ]
        text = [v[:, None] for v in modulation(block.norm1_context, times[0])]
        h = block.norm1.norm(x) * (1 + image[1]) + image[0]
        g = block.norm1_context.norm(c) * (1 + text[1]) + text[0]
        q, k, v = (
            self._image(getattr(attn, part), f"{name}attn.{part}", h, is_target_N1)
            .unflatten(-1, (heads, -1))
            for part in ("to_q", "to_k", "to_v")
        )  # fmt: skip
        q, k = rotate(attn.norm_q(q), rope), rotate(attn.norm_k(k), rope)
        tq, tk, tv = (
            self._text(getattr(attn, part), f"{name}attn.{part}", g).unflatten(-1, (heads, -1))
            for part in ("add_q_proj", "add_k_proj", "add_v_proj")
        )
        tq, tk = attn.norm_added_q(tq), attn.norm_added_k(tk)
        q, k, v = (
            torch.cat(pair, dim=1).transpose(1, 2) for pair in ((q, tq), (k, tk), (v, tv))
        )  # fmt: skip
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        out = out.transpose(1, 2).flatten(2).nan_to_num()
        a, b = out.split([x.shape[1], c.shape[1]], dim=1)
        x = x + image[2] * self._image(attn.to_out[0], f"{name}attn.to_out.0", a, is_target_N1)
        c = c + text[2] * self._text(attn.to_add_out, f"{name}attn.to_add_out", b)
        h = block.norm2(x) * (1 + image[4]) + image[3]
        up = self._image(block.ff.net[0].proj, f"{name}ff.net.0.proj", h, is_target_N1)
        up = F.gelu(up, approximate="tanh")
        x = x + image[5] * self._image(block.ff.net[2], f"{name}ff.net.2", up, is_target_N1)
        g = block.norm2_context(c) * (1 + text[4]) + text[3]
        ff = block.ff_context.net
        up = self._text(ff[0].proj, f"{name}ff_context.net.0.proj", g)
        up = F.gelu(up, approximate="tanh")
        return x, c + text[5] * self._text(ff[2], f"{name}ff_context.net.2", up)
