"""Pictures of a backbone: reconstructions, samples, the loss curve."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from diffusers import AutoencoderKLHunyuanVideo15
from PIL import Image
from torch import nn

from dreambooth3d.artifacts.chart import line_chart
from dreambooth3d.backbone.components import Components
from dreambooth3d.backbone.curve import read_curve
from dreambooth3d.backbone.latents import encode_captions
from dreambooth3d.backbone.pool import KINDS, Pixels, Pool
from dreambooth3d.backbone.train import sample_latents
from dreambooth3d.model.codec import LatentCodec, to_frames, to_pixels
from dreambooth3d.model.texts import TextStates

SAMPLE_PROMPTS = (
    "a photo of a red car in a forest",
    "a photo of a blue striped teapot on a wooden desk",
    "a photo of a green dog on a beach",
    "a photo of a yellow spotted rocket under water",
    "a photo of a pink duck at night",
    "a photo of an orange mushroom on a white background",
    "a photo of a purple robot in a city street",
    "a photo of a cyan mug in a kitchen",
)
SAMPLE_CLIPS = (
    "a video of a red duck in a forest, turning to the left",
    "a video of a blue car in a city street, sliding to the right",
    "a video of a yellow bear at sunset, the camera orbiting around it",
)


def save_reconstructions(path: Path, vae: AutoencoderKLHunyuanVideo15, pool: Pool) -> None:
    """Save held-out frames above their reconstructions."""
    codec = LatentCodec(vae)
    columns = []
    for kind in ("image", "reference", "clip"):
        pixels = pool.of_kind(kind)[0].pixels[:6]
        output = codec.decode(codec.encode(to_pixels(pixels)))
        frames = to_frames(output)
        columns += [np.concatenate([a[-1], b[-1]]) for a, b in zip(pixels, frames, strict=True)]
    _save_image(path, np.concatenate(columns, axis=1))


def save_samples(
    path: Path,
    parts: Components,
    transformer: nn.Module,
    *,
    size: int,
    num_frames: int,
    seed: int = 0,
) -> None:
    """Save a sheet: one row of photos, then a row of frames for each clip."""
    codec = LatentCodec(parts.vae)

    def sample(prompts: Sequence[str], count: int) -> Pixels:
        empty, *texts = (
            TextStates(states_SD=states.float())
            for states in encode_captions(parts, ["", *prompts])
        )
        shape = (codec.num_channels, *codec.latent_size(count, size, size))
        latents = sample_latents(transformer, texts, empty, shape, seed=seed)
        return to_frames(codec.decode(latents))

    photos, clips = sample(SAMPLE_PROMPTS, 1), sample(SAMPLE_CLIPS, num_frames)
    picks = np.linspace(0, num_frames - 1, len(photos)).round().astype(int)
    rows = [photos[:, 0], *(clip[picks] for clip in clips)]
    _save_image(path, np.concatenate([np.concatenate(list(row), axis=1) for row in rows]))


def _save_image(path: Path, pixels: Pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    image.resize((image.width * 2, image.height * 2), Image.Resampling.NEAREST).save(path)


def save_curve(path: Path, curve: Path) -> None:
    """Draw the losses of a curve file as SVG."""
    points = read_curve(curve)
    series = {
        kind: [(p.step, p.losses[kind]) for p in points if kind in p.losses] for kind in KINDS
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    chart = line_chart(
        {kind: line for kind, line in series.items() if line},
        x_label="updates",
        y_label="velocity loss (unit-variance latents)",
        title="Training of the transformer",
    )
    path.write_text(chart, encoding="utf-8")
