"""What references do for a pretrained 3Dapter, on subjects that no training has seen.

Right and wrong reference share target, prompt and noise: nothing differs but whose views are given.
Below a noise level of about 0.3 the noisy target itself shows the subject and references cannot
matter, so the loss is measured where they must.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dreambooth3d.artifacts.adapter import Adapter
from dreambooth3d.diffusion.noise import draw_noise, keyed_generator
from dreambooth3d.diffusion.path import interpolate, velocity_loss
from dreambooth3d.evaluate.config import BackboneSuiteConfig, EvaluateConfig, ReferenceSuiteConfig
from dreambooth3d.evaluate.foreground import cut_out
from dreambooth3d.evaluate.identity import view_similarity
from dreambooth3d.evaluate.probe import Probe
from dreambooth3d.evaluate.reference_report import (
    Case,
    CaseRow,
    Given,
    ReferenceScore,
    write_reference_report,
)
from dreambooth3d.evaluate.sampling import Prompt, ReferenceUse, sample_clips
from dreambooth3d.model.backbone import Backbone
from dreambooth3d.model.forward import denoise
from dreambooth3d.model.names import place_lora
from dreambooth3d.model.texts import TextStates
from dreambooth3d.scenes import (
    FIRST_HELD_OUT_SEED,
    Camera,
    Subject,
    describe,
    make_scene,
    make_subject,
    reference_cameras,
    render_scene,
    render_view,
)

# Beside the seeds of the backbone suite, which start at twice the first held-out seed.
_FIRST_SEED = 3 * FIRST_HELD_OUT_SEED
_SEEDS_A_SUITE = 10_000
_ELEVATIONS_DEG = (5.0, 25.0)


def make_case(seed: int, config: ReferenceSuiteConfig, *, size: int) -> Case:
    """Make the case of a subject as the corpus makes its pairs: one view on white, one scene."""
    subject = make_subject(seed)
    rng = np.random.default_rng(seed)
    camera = Camera(
        azimuth_deg=float(rng.uniform(0, 360)), elevation_deg=float(rng.uniform(*_ELEVATIONS_DEG))
    )
    scene = make_scene(subject, seed, num_frames=1)
    frames, _ = render_scene(scene, size=size)
    return Case(
        seed=seed,
        target=frames[0],
        caption=describe(scene, rng=rng, is_named=bool(rng.random() < config.named_share)),
        view=render_view(subject, camera, size=size).rgb,
        judged_by=_views(subject, size),
    )


def make_cases(config: ReferenceSuiteConfig, *, size: int) -> list[Case]:
    """Make the cases of `config.seed`: pictures of `size` pixels, subjects nobody trained on."""
    first = _FIRST_SEED + _SEEDS_A_SUITE * config.seed
    return [make_case(first + n, config, size=size) for n in range(config.num_subjects)]


def _views(subject: Subject, size: int) -> tuple[NDArray[np.uint8], ...]:
    return tuple(render_view(subject, camera, size=size).rgb for camera in reference_cameras(4))


def run(
    config: ReferenceSuiteConfig,
    backbone: Backbone,
    adapter: Adapter,
    probe: Probe,
    out: Path,
    *,
    report: Callable[[str], None] = print,
) -> ReferenceScore:
    """Measure a 3Dapter on the subjects of `config.seed`; write a page with pictures into `out`."""
    adapter.card.require_pretrained()
    adapter.card.require_backbone(backbone.card.revision, name=backbone.card.name)
    started = time.monotonic()
    cases = make_cases(config, size=backbone.card.train_side)
    use = place(adapter, backbone)
    report(f"suite reference: {len(cases)} subjects, loss")
    right, wrong = losses(config, backbone, use, cases)
    report(
        f"suite reference: pictures of {config.num_pictures} subjects, "
        f"{time.monotonic() - started:.0f} s so far"
    )
    shown = cases[: config.num_pictures]
    made = pictures(config, backbone, use, shown)
    own, other = (identity(probe, made[which], shown) for which in ("right", "wrong"))
    score = ReferenceScore(
        loss_right=float(right.mean()),
        loss_wrong=float(wrong.mean()),
        share=float((right < wrong).float().mean()),
        identity_right=float(np.mean(own)),
        identity_wrong=float(np.mean(other)),
    )
    rows = [
        CaseRow(
            case=case,
            loss_right=float(right[row]),
            loss_wrong=float(wrong[row]),
            picture_right=made["right"][row],
            picture_wrong=made["wrong"][row],
            identity_right=own[row],
            identity_wrong=other[row],
        )
        for row, case in enumerate(shown)
    ]
    page = write_reference_report(out, config, score, rows, adapter.card)
    report(f"suite reference: {page}, {time.monotonic() - started:.0f} s")
    return score


def place(adapter: Adapter, backbone: Backbone) -> ReferenceUse:
    """Put the reference part of an adapter on the backbone."""
    card = adapter.card
    weights = adapter.weights["reference"]
    lora = place_lora(
        backbone.transformer, weights, role="reference", rank=card.rank, scale=card.scale
    )
    return ReferenceUse(
        lora=lora.to(backbone.device).requires_grad_(False),
        attention=card.reference_attention,
        time_offset=card.reference_time_offset,
    )


@torch.no_grad()
def losses(
    config: ReferenceSuiteConfig, backbone: Backbone, use: ReferenceUse, cases: Sequence[Case]
) -> tuple[Tensor, Tensor]:
    """Mean loss over the noise band of every case, with its own view and with the next case's."""
    targets = _encode(backbone, [case.target for case in cases]).transpose(1, 2)  # one frame
    views = _encode(backbone, [case.view for case in cases])
    texts = [backbone.prompts(case.caption) for case in cases]
    sums = torch.zeros(2, len(cases))
    levels = torch.linspace(*config.band, config.num_levels)
    for place_, level in enumerate(levels.tolist()):
        keys = [keyed_generator("reference suite", case.seed, place_) for case in cases]
        noise = torch.stack([draw_noise(targets.shape[1:], key) for key in keys])
        for row, given in enumerate((views, views.roll(-1, dims=0))):
            sums[row] += _level_loss(config, backbone, use, (targets, noise, given), texts, level)
    return sums[0] / len(levels), sums[1] / len(levels)


def _level_loss(
    config: ReferenceSuiteConfig,
    backbone: Backbone,
    use: ReferenceUse,
    tensors: tuple[Tensor, Tensor, Tensor],
    texts: Sequence[TextStates],
    level: float,
) -> Tensor:
    """Loss of every case at one noise level, (N,)."""
    parts = []
    for start in range(0, len(texts), config.batch_size):
        rows = slice(start, start + config.batch_size)
        target, noise, given = (x[rows].to(backbone.device, backbone.dtype) for x in tensors)
        sigma_B = torch.full((len(target),), level, device=backbone.device)
        velocity = denoise(
            backbone.transformer,
            interpolate(target, noise, sigma_B),
            sigma_B * 1000,
            texts[rows],
            **use.condition(backbone, given),
        )
        parts.append(velocity_loss(velocity, target, noise).cpu())
    return torch.cat(parts)


def pictures(
    config: ReferenceSuiteConfig, backbone: Backbone, use: ReferenceUse, cases: Sequence[Case]
) -> dict[Given, NDArray[np.uint8]]:
    """Generate a picture (H, W, 3) of every case with the right and with a wrong reference."""
    views = _encode(backbone, [case.view for case in cases])
    sampling = BackboneSuiteConfig(
        steps=config.steps,
        guidance_scale=config.guidance_scale,
        reference_guidance_scale=config.reference_guidance_scale,
        batch_size=config.batch_size,
    )
    made: dict[Given, NDArray[np.uint8]] = {}
    which: Given
    for which, given in (("right", views), ("wrong", views.roll(-1, dims=0))):
        prompts = [
            Prompt(text=case.caption, noise_key=case.seed, views_VCHW=given[row])
            for row, case in enumerate(cases)
        ]
        made[which] = sample_clips(backbone, prompts, sampling, num_frames=1, reference=use)[:, 0]
    return made


def identity(
    probe: Probe, made_NHWC: NDArray[np.uint8], cases: Sequence[Case]
) -> tuple[float, ...]:
    """Identity of every picture with the views of its own subject."""
    return tuple(
        view_similarity(cut_out(probe, picture[None]), case.judged_by, EvaluateConfig())
        for picture, case in zip(made_NHWC, cases, strict=True)
    )


def _encode(backbone: Backbone, pictures: Sequence[NDArray[np.uint8]]) -> Tensor:
    """Latents of pictures, (N, 1, C, H, W)."""
    return backbone.codec.encode_images(pictures)[:, None].cpu()
