"""Sample clips, several subjects in one batch.

A clip is the same alone or beside neighbours: noise comes from its own seed, the forward keeps rows
apart, and rows of one batch only need equal shapes and schedules (`ClipRequest.batch_key`).
"""

import re
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dreambooth3d.artifacts.adapter import Adapter, AdapterCard, load_adapter
from dreambooth3d.artifacts.image import letterbox
from dreambooth3d.artifacts.prompt import parse_prompt
from dreambooth3d.diffusion.noise import draw_noise, keyed_generator
from dreambooth3d.diffusion.sampler import euler_step, flow_sigmas, guide, guide_by_both
from dreambooth3d.errors import ArtifactError, ConfigError
from dreambooth3d.generate.config import GenerateConfig
from dreambooth3d.model.backbone import Backbone, BackboneCard
from dreambooth3d.model.choices import TextScope
from dreambooth3d.model.codec import to_frames
from dreambooth3d.model.forward import ReferenceKV, denoise, encode_references
from dreambooth3d.model.lora import LoraAdapter, LoraSource, Role, RowLoras
from dreambooth3d.model.names import place_lora
from dreambooth3d.model.routing import Routes
from dreambooth3d.model.texts import TextStates

Frames = NDArray[np.uint8]
_MOST_SIZES = 4


@dataclass(eq=False)
class LoadedSubject:
    """An adapter on the backbone's device; its reference latents and K/V are kept by clip size.

    Of the sizes used last: a client chooses them, and memory is not his.
    """

    card: AdapterCard
    loras: dict[Role, LoraAdapter]
    views: tuple[Image.Image, ...]
    _latents: OrderedDict[tuple[int, int], Tensor] = field(default_factory=OrderedDict)
    _kv: OrderedDict[tuple[int, int], ReferenceKV] = field(default_factory=OrderedDict)
    _lock: Lock = field(default_factory=Lock)

    @property
    def num_bytes(self) -> int:
        """Memory of the weights, and of what is kept of the views."""
        weights = sum(p.nbytes for lora in self.loras.values() for p in lora.parameters())
        with self._lock:
            views = sum(latents.nbytes for latents in self._latents.values())
            views += sum(t.nbytes for kv in self._kv.values() for pair in kv for t in pair)
        return weights + views

    def reference_latents(self, backbone: Backbone, width: int, height: int) -> Tensor:
        """Encode the views for clips of this size (pixels), (V, C, H, W); once."""
        with self._lock:
            if (width, height) not in self._latents:
                self._latents[width, height] = encode_views(backbone, self.views, width, height)
                _keep_newest(self._latents)
            return self._latents[width, height]

    def reference_kv(self, backbone: Backbone, width: int, height: int) -> ReferenceKV:
        """Keys and values of the views for `isolated` attention; once."""
        latents = self.reference_latents(backbone, width, height)
        with self._lock:
            if (width, height) not in self._kv:
                self._kv[width, height] = encode_references(
                    backbone.transformer,
                    latents[None].to(backbone.device, backbone.dtype),
                    reference=self.loras.get("reference"),
                    reference_time_offset=self.card.reference_time_offset,
                )
                _keep_newest(self._kv)
            return self._kv[width, height]


def _keep_newest(by_size: OrderedDict[tuple[int, int], Any]) -> None:
    while len(by_size) > _MOST_SIZES:
        by_size.popitem(last=False)


@dataclass(frozen=True, kw_only=True, eq=False)
class ClipRequest:
    """One clip to make. Sizes in pixels and frames; `subject=None` is the plain backbone."""

    prompt: str
    subject: LoadedSubject | None
    num_frames: int
    width: int
    height: int
    flow_shift: float
    seed: int = 0
    num_steps: int = 20
    guidance_scale: float = 4.0
    guided_above: float = 0.0
    reference_guidance_scale: float = 1.0
    negative_prompt: str = ""

    @property
    def batch_key(self) -> tuple[object, ...]:
        """Rows of one batch must agree in this."""
        shape = (self.width, self.height, self.num_frames, self.num_steps, self.flow_shift)
        if self.subject is None:
            return (*shape, 0, "joint", 0, "prompt")
        card = self.subject.card
        num_views = len(self.subject.views)
        return (
            *shape,
            num_views,
            card.reference_attention,
            card.reference_time_offset,
            card.text_scope,
        )


def resolve(config: GenerateConfig, card: BackboneCard) -> GenerateConfig:
    """Put the backbone's own values where settings are 0."""
    return replace(
        config,
        num_frames=config.num_frames or card.num_frames,
        width=config.width or card.width,
        height=config.height or card.height,
        flow_shift=config.flow_shift or card.flow_shift,
    )


def make_request(
    config: GenerateConfig,
    card: BackboneCard,
    prompt: str,
    subject: LoadedSubject | None,
    *,
    index: int = 0,
) -> ClipRequest:
    """Fill a request from settings and the backbone's defaults; `index` moves the seed on."""
    config = resolve(config, card)
    return ClipRequest(
        prompt=prompt,
        subject=subject,
        num_frames=config.num_frames,
        width=config.width,
        height=config.height,
        flow_shift=config.flow_shift,
        seed=config.seed + index,
        num_steps=config.steps,
        guidance_scale=config.guidance_scale,
        guided_above=config.guided_above,
        reference_guidance_scale=config.reference_guidance_scale,
        negative_prompt=config.negative_prompt,
    )


def load_subject(folder: Path, backbone: Backbone) -> LoadedSubject:
    """Load an adapter folder onto a backbone.

    Raises:
        AdapterError: it was made for another backbone, or its weights do not fit.
        ArtifactError: a file is missing or damaged.
    """
    adapter = load_adapter(folder)
    for role, weights in adapter.weights.items():
        if not all(bool(value.isfinite().all()) for value in weights.values()):
            raise ArtifactError(
                f"weights of an adapter must be finite numbers, got others in {role}.safetensors "
                f"of {folder.name}; personalize the subject again"
            )
    return place_adapter(adapter, backbone)


def place_adapter(adapter: Adapter, backbone: Backbone) -> LoadedSubject:
    """Put an adapter's weights beside a backbone, in the backbone's type."""
    card = adapter.card
    card.require_backbone(backbone.card.revision, name=backbone.card.name)
    loras: dict[Role, LoraAdapter] = {}
    for role, weights in adapter.weights.items():
        lora = place_lora(
            backbone.transformer, weights, role=role, rank=card.rank, scale=card.scale
        )
        loras[role] = lora.requires_grad_(False).to(backbone.device, backbone.dtype)
    views = adapter.references if "reference" in loras else ()
    return LoadedSubject(card=card, loras=loras, views=views)


def encode_views(
    backbone: Backbone, views: Sequence[Image.Image], width: int, height: int
) -> Tensor:
    """Letterbox views on white to the clip's size and encode them, (V, C, H, W); never cropped."""
    return backbone.codec.encode_images(
        [np.asarray(letterbox(view, (width, height))) for view in views]
    )


def mark_subject(prompt: str, card: AdapterCard) -> str:
    """Put brackets around the words that name the subject, and its own trigger inside.

    A bracket of the form [<word> <class noun>] is taken to mean the subject; without brackets the
    words `<trigger> <class noun>` are looked for.

    Raises:
        InputError: the prompt has brackets around something else.
    """
    name = f"{card.trigger} {card.class_noun}"
    parts = parse_prompt(prompt, class_noun=card.class_noun, trigger=card.trigger)
    if parts.span is not None:
        return f"{parts.before}[{name}]{parts.after}"
    words = re.compile(rf"(?<!\w){re.escape(name)}(?!\w)", re.IGNORECASE)
    return words.sub(lambda _: f"[{name}]", prompt, count=1)


def generate_batch(
    backbone: Backbone,
    requests: Sequence[ClipRequest],
    *,
    on_step: Callable[[int, int], Collection[int]] | None = None,
) -> list[Frames | None]:
    """Sample one batch of clips with equal `batch_key`.

    Args:
        backbone: used by any number of threads at once.
        requests: rows; different subjects may share the batch.
        on_step: told (finished steps, steps) after each step; returns the rows to drop.

    Returns:
        For each request its frames (F, H, W, 3), uint8; None where it was dropped.
    """
    if len({request.batch_key for request in requests}) != 1:
        raise ConfigError(
            "requests of one batch must have equal size, frames, steps and views, "
            f"got {sorted({str(r.batch_key) for r in requests})}; group them by batch_key"
        )
    first = requests[0]
    size = backbone.codec.latent_size(first.num_frames, first.height, first.width)
    shape = (backbone.codec.num_channels, *size)
    noise = [draw_noise(shape, keyed_generator("clip", request.seed)) for request in requests]
    x = torch.stack(noise).to(backbone.device)
    sigmas = flow_sigmas(first.num_steps, first.flow_shift)
    rows = list(range(len(requests)))
    batch = _Batch(backbone, requests)
    with torch.no_grad():
        for step in range(first.num_steps):
            x = euler_step(batch.velocity, x, sigmas[step], sigmas[step + 1])
            dropped = set() if on_step is None else set(on_step(step + 1, first.num_steps))
            if dropped & set(rows):
                keep = [i for i, row in enumerate(rows) if row not in dropped]
                rows, x = [rows[i] for i in keep], x[keep]
                if not rows:
                    break
                batch = _Batch(backbone, [requests[row] for row in rows])
        clips: list[Frames | None] = [None] * len(requests)
        for row, latents in zip(rows, x, strict=True):
            (clips[row],) = to_frames(backbone.codec.decode(latents[None]))
    return clips


class _Batch:
    """What stays the same over the steps of one batch: texts, routes, references."""

    def __init__(self, backbone: Backbone, requests: Sequence[ClipRequest]) -> None:
        self._backbone = backbone
        self._subjects = [request.subject for request in requests]
        first = requests[0]
        self._scale = _column([r.guidance_scale for r in requests], backbone)
        self._guided_above = _column([r.guided_above for r in requests], backbone)
        by_reference = [r.reference_guidance_scale if r.subject else 1.0 for r in requests]
        self._reference_scale = _column(by_reference, backbone)
        prompts = [
            r.prompt if r.subject is None or not r.subject.card.trigger
            else mark_subject(r.prompt, r.subject.card)
            for r in requests
        ]  # fmt: skip
        self._texts = [backbone.prompts(prompt) for prompt in prompts]
        self._negatives = [backbone.prompts(request.negative_prompt) for request in requests]
        subject = self._subjects[0]
        scope: TextScope = "prompt" if subject is None else subject.card.text_scope
        self._routes = Routes(
            subject=self._source("subject"),
            reference=self._source("reference"),
            text_scope=scope,
        )
        self._offset = 0 if subject is None else subject.card.reference_time_offset
        self._views = self._gather_references(first.width, first.height)
        self._is_guided_by_reference = self._views.is_given and any(s != 1 for s in by_reference)
        if self._is_guided_by_reference:
            self._blank = self._views_of_nothing(first.width, first.height)

    def velocity(self, x_BCTHW: Tensor, sigma_B: Tensor, /) -> Tensor:
        """Guided velocity; references are in both branches of the guidance on the text."""
        full = self._branch(x_BCTHW, sigma_B, self._texts, self._views)
        is_late = sigma_B.view(-1, 1, 1, 1, 1) < self._guided_above
        scale = torch.where(is_late, 1.0, self._scale)
        if self._is_guided_by_reference:
            return guide_by_both(
                full,
                self._branch(x_BCTHW, sigma_B, self._negatives, self._views),
                self._branch(x_BCTHW, sigma_B, self._negatives, self._blank),
                text=scale,
                reference=self._reference_scale,
            )
        if bool((scale == 1).all()):
            return full
        without_text = self._branch(x_BCTHW, sigma_B, self._negatives, self._views)
        return guide(full, without_text, scale)

    def _branch(
        self, x_BCTHW: Tensor, sigma_B: Tensor, texts: Sequence[TextStates], views: "_Views"
    ) -> Tensor:
        return denoise(
            self._backbone.transformer,
            x_BCTHW.to(self._backbone.dtype),
            sigma_B * 1000,
            texts,
            routes=self._routes,
            references_BVCHW=views.latents_BVCHW,
            reference_kv=views.kv,
            reference_time_offset=self._offset,
        ).float()

    def _source(self, role: Role) -> LoraSource | None:
        loras = [None if s is None else s.loras.get(role) for s in self._subjects]
        if all(lora is None for lora in loras):
            return None
        if all(lora is loras[0] for lora in loras):
            return loras[0]
        return RowLoras(loras)

    def _gather_references(self, width: int, height: int) -> "_Views":
        subjects = [s for s in self._subjects if s is not None and s.views]
        if not subjects:
            return _Views()
        backbone = self._backbone
        if subjects[0].card.reference_attention == "joint":
            latents = [s.reference_latents(backbone, width, height) for s in subjects]
            return _Views(torch.stack(latents).to(backbone.device, backbone.dtype))
        caches = [s.reference_kv(backbone, width, height) for s in subjects]
        blocks = zip(*caches, strict=True)
        kv = tuple(
            (torch.cat([k for k, _ in block]), torch.cat([v for _, v in block])) for block in blocks
        )
        return _Views(kv=kv)

    def _views_of_nothing(self, width: int, height: int) -> "_Views":
        """White pictures instead of the views, which reference dropout taught to say nothing."""
        backbone = self._backbone
        white = backbone.codec.encode_images([np.full((height, width, 3), 255, np.uint8)])
        # Rows of one batch have equally many views.
        num_views = max(len(s.views) for s in self._subjects if s is not None)
        latents = white.to(backbone.device, backbone.dtype).expand(
            len(self._subjects), num_views, *white.shape[1:]
        )
        if self._views.kv is None:
            return _Views(latents)
        kv = encode_references(
            backbone.transformer,
            latents,
            reference=self._routes.reference,
            reference_time_offset=self._offset,
        )
        return _Views(kv=kv)


@dataclass(frozen=True, eq=False)
class _Views:
    """Reference views of a batch: latents for `joint` attention, keys and values for `isolated`."""

    latents_BVCHW: Tensor | None = None
    kv: ReferenceKV | None = None

    @property
    def is_given(self) -> bool:
        return self.latents_BVCHW is not None or self.kv is not None


def _column(values: Sequence[float], backbone: Backbone) -> Tensor:
    """One value a row of latents, (B, 1, 1, 1, 1)."""
    return torch.tensor(values).view(-1, 1, 1, 1, 1).to(backbone.device)
