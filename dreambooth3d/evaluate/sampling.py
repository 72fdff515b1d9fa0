"""Text to video with a backbone, bare or with a reference adapter, many prompts at a time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dreambooth3d.diffusion.noise import draw_noise, keyed_generator
from dreambooth3d.diffusion.sampler import euler, flow_sigmas, guide, guide_by_both
from dreambooth3d.evaluate.config import BackboneSuiteConfig
from dreambooth3d.model.backbone import Backbone
from dreambooth3d.model.choices import ReferenceAttention
from dreambooth3d.model.codec import to_frames
from dreambooth3d.model.forward import denoise, encode_references
from dreambooth3d.model.lora import LoraAdapter
from dreambooth3d.model.routing import Routes
from dreambooth3d.model.texts import TextStates


@dataclass(frozen=True, kw_only=True, eq=False)
class ReferenceUse:
    """A reference adapter and how the backbone attends to its views."""

    lora: LoraAdapter
    attention: ReferenceAttention
    time_offset: int

    def condition(self, backbone: Backbone, references_BVCHW: Tensor) -> dict[str, Any]:
        """Arguments of `denoise` for these views."""
        common = {
            "routes": Routes(reference=self.lora),
            "reference_time_offset": self.time_offset,
        }
        if self.attention == "joint":
            return {**common, "references_BVCHW": references_BVCHW}
        kv = encode_references(
            backbone.transformer,
            references_BVCHW,
            reference=self.lora,
            reference_time_offset=self.time_offset,
        )
        return {**common, "reference_kv": kv}


@dataclass(frozen=True, kw_only=True, eq=False)
class Prompt:
    """A text, the name of its noise, and latents of reference views for an adapter."""

    text: str
    noise_key: int
    views_VCHW: Tensor | None = None


def sample_clips(
    backbone: Backbone,
    prompts: Sequence[Prompt],
    config: BackboneSuiteConfig,
    *,
    num_frames: int,
    reference: ReferenceUse | None = None,
    on_step: Callable[[int], None] = lambda num_clips: None,
) -> NDArray[np.uint8]:
    """Sample one clip a prompt, (N, F, H, W, 3), in the order of the prompts.

    Args:
        backbone: what is sampled from.
        prompts: texts; all with as many views, or all without.
        config: steps, guidance and batch size.
        num_frames: frames of every clip.
        reference: the adapter that the prompts' views go through.
        on_step: told the number of clips that went one step on.
    """
    texts = [backbone.prompts(prompt.text) for prompt in prompts]
    # Prompts of like length share a batch: padding of the text stream costs time.
    order = sorted(range(len(prompts)), key=lambda i: len(texts[i].states_SD))
    clips: dict[int, NDArray[np.uint8]] = {}
    for start in range(0, len(order), config.batch_size):
        rows = order[start : start + config.batch_size]
        latents = _sample(
            backbone,
            [texts[row] for row in rows],
            _noise(backbone, [prompts[row] for row in rows], num_frames),
            config,
            _condition(backbone, [prompts[row] for row in rows], reference),
            _nothing(backbone, [prompts[row] for row in rows], config, reference),
            on_step,
        )
        for row, clip in zip(rows, to_frames(backbone.codec.decode(latents)), strict=True):
            clips[row] = clip
    return np.stack([clips[row] for row in range(len(prompts))])


def _noise(backbone: Backbone, prompts: Sequence[Prompt], num_frames: int) -> Tensor:
    size = backbone.codec.latent_size(num_frames, backbone.card.height, backbone.card.width)
    shape = (backbone.codec.num_channels, *size)
    keys = [keyed_generator("suite", prompt.noise_key) for prompt in prompts]
    return torch.stack([draw_noise(shape, key) for key in keys]).to(backbone.device)


def _condition(
    backbone: Backbone, prompts: Sequence[Prompt], use: ReferenceUse | None
) -> dict[str, Any]:
    """What the forward is told of the views, besides the texts."""
    views = [prompt.views_VCHW for prompt in prompts if prompt.views_VCHW is not None]
    if use is None or not views:
        return {}
    references = torch.stack(views).to(backbone.device, backbone.dtype)
    return use.condition(backbone, references)


def _nothing(
    backbone: Backbone,
    prompts: Sequence[Prompt],
    config: BackboneSuiteConfig,
    use: ReferenceUse | None,
) -> dict[str, Any]:
    """The same for views of nothing on white, which reference dropout taught to say nothing."""
    if use is None or config.reference_guidance_scale == 0:
        return {}
    size = (backbone.card.height, backbone.card.width, 3)
    white = backbone.codec.encode_images([np.full(size, 255, np.uint8)])
    blank = [
        replace(prompt, views_VCHW=white.expand_as(prompt.views_VCHW))
        for prompt in prompts
        if prompt.views_VCHW is not None
    ]
    return _condition(backbone, blank, use)


@torch.no_grad()
def _sample(
    backbone: Backbone,
    texts: Sequence[TextStates],
    noise_BCTHW: Tensor,
    config: BackboneSuiteConfig,
    condition: dict[str, Any],
    nothing: dict[str, Any],
    on_step: Callable[[int], None],
) -> Tensor:
    empty = [backbone.prompts("")] * len(texts)

    def branch(
        x: Tensor,
        sigma_B: Tensor,
        states: Sequence[TextStates],
        views: dict[str, Any] = condition,
    ) -> Tensor:
        with torch.autocast(backbone.device.type, torch.bfloat16):
            velocity = denoise(
                backbone.transformer, x.to(backbone.dtype), sigma_B * 1000, states, **views
            )
        return velocity.float()

    def velocity(x: Tensor, sigma_B: Tensor, /) -> Tensor:
        conditional = branch(x, sigma_B, texts)
        if config.reference_guidance_scale:
            return guide_by_both(
                conditional,
                branch(x, sigma_B, empty),
                branch(x, sigma_B, empty, nothing),
                text=config.guidance_scale,
                reference=config.reference_guidance_scale,
            )
        if config.guidance_scale == 1 or bool(sigma_B[0] < config.guided_above):
            return conditional
        return guide(conditional, branch(x, sigma_B, empty), config.guidance_scale)

    def tell(step: int, x: Tensor) -> bool:
        on_step(len(x))
        return False

    shift = config.flow_shift or backbone.card.flow_shift
    return euler(velocity, noise_BCTHW, flow_sigmas(config.steps, shift), on_step=tell)
