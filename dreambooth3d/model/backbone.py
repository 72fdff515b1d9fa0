"""Load a backbone: `tiny` (embedded), any diffusers folder, or a hub id. One code path."""

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dreambooth3d.errors import ArtifactError, ConfigError
from dreambooth3d.model.codec import LatentCodec
from dreambooth3d.model.prompts import PromptEncoder

EMBEDDED = Path(__file__).parent.parent / "backbones"
# Weight files up to this size are hashed whole, larger ones by evenly spaced blocks.
_WHOLE_BYTES = 256 * 2**20
_NUM_BLOCKS, _BLOCK_BYTES = 64, 2**16


@dataclass(frozen=True, kw_only=True)
class BackboneCard:
    """What is known of a backbone before its weights are loaded.

    Attributes:
        name: what the user asked for.
        folder: where its files are.
        revision: 16 hex digits over the configs and weights of every part (of a hub snapshot: of
            its commit), since any of them changes what is drawn.
        flow_shift: shift of the sampling schedule.
        width, height, num_frames: the clip it makes when not told otherwise (pixels, frames).
        train_side: side of the square pictures adapters are trained on, in pixels.
    """

    name: str
    folder: Path
    revision: str
    flow_shift: float
    width: int
    height: int
    num_frames: int
    train_side: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoders:
    """The frozen parts of a backbone that make of pictures and words what its transformer takes."""

    card: BackboneCard
    codec: LatentCodec
    prompts: PromptEncoder


@dataclass(frozen=True, kw_only=True, eq=False)
class Denoiser:
    """The frozen transformer of a backbone, ready for `denoise`."""

    card: BackboneCard
    transformer: nn.Module

    @property
    def device(self) -> torch.device:
        """Where the transformer's weights are."""
        return next(self.transformer.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the transformer's weights."""
        return next(self.transformer.parameters()).dtype


@dataclass(frozen=True, kw_only=True, eq=False)
class Backbone(Denoiser, Encoders):
    """All parts of a frozen backbone; may be used from several threads."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Structure:
    """A backbone's transformer on the meta device, and the shapes of what goes into it.

    Attributes:
        transformer: a `HunyuanVideo15Transformer3DModel` without data.
        latent_channels: of the VAE.
        spatial_ratio: pixels of a latent, along a side.
        patch_size: latents of a token, along a side.
        text_width: of the text states.
    """

    transformer: nn.Module
    latent_channels: int
    spatial_ratio: int
    patch_size: int
    text_width: int

    def latent_side(self, side: int) -> int:
        """Latents along the side of a square picture of `side` pixels.

        Raises:
            ConfigError: the picture does not fill whole tokens.
        """
        token = self.spatial_ratio * self.patch_size
        if side < token or side % token:
            raise ConfigError(
                f"size must be a positive multiple of {token}, got {side}; "
                f"use {max(1, round(side / token)) * token}"
            )
        return side // self.spatial_ratio


def resolve_backbone(source: str, *, has_weights: bool = True) -> Path:
    """Find a backbone's folder: an embedded name, a local folder, or a hub id (downloaded).

    Args:
        source: the name.
        has_weights: False fetches the small configuration files of a hub id only.

    Raises:
        ArtifactError: nothing of that name exists here or on the hub.
    """
    for folder in (EMBEDDED / source, Path(source)):
        if (folder / "model_index.json").is_file():
            return folder
    if source.count("/") != 1 or source.startswith((".", "/")):
        raise ArtifactError(
            f"backbone must be 'tiny', a diffusers folder with model_index.json or a hub id "
            f"'owner/name', got {source!r}; check the name"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    patterns = ["*.json", "*.txt", "*.jinja", *(["*.safetensors"] if has_weights else [])]
    try:
        return Path(snapshot_download(source, allow_patterns=patterns))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ArtifactError(
            f"backbone {source!r} must be on this machine or reachable on the hub, "
            f"got {type(error).__name__}; download it first or point at its folder"
        ) from error


def localize(source: str) -> str:
    """Make the path of a local folder absolute: workers run in other working directories."""
    is_folder = (Path(source) / "model_index.json").is_file()
    return str(Path(source).resolve()) if is_folder else source


def read_card(source: str) -> BackboneCard:
    """Describe a backbone without loading (or downloading) its weights."""
    folder = resolve_backbone(source, has_weights=False)
    config = _read_json(folder / "transformer" / "config.json")
    scheduler = _read_json(folder / "scheduler" / "scheduler_config.json")
    side = int(config.get("target_size") or 640)
    # The hub's repositories are for 16:9 clips of 121 frames; small grids are square and short.
    is_large = side >= 256
    ratio = token_side(folder)
    return BackboneCard(
        name=source,
        folder=folder,
        revision=fingerprint(folder),
        flow_shift=float(scheduler.get("shift", 1.0)),
        width=round(side * 4 / 3 / ratio) * ratio if is_large else side,
        height=round(side * 3 / 4 / ratio) * ratio if is_large else side,
        num_frames=121 if is_large else 17,
        train_side=512 if is_large else side,
    )


def read_structure(source: str) -> Structure:
    """Build a backbone's transformer from its configuration alone: no weights, no memory."""
    from diffusers import HunyuanVideo15Transformer3DModel

    folder = resolve_backbone(source, has_weights=False)
    config = _read_json(folder / "transformer" / "config.json")
    vae = _read_json(folder / "vae" / "config.json")
    with torch.device("meta"):
        transformer = HunyuanVideo15Transformer3DModel.from_config(config)
    return Structure(
        transformer=transformer.requires_grad_(False).eval(),
        latent_channels=int(vae["latent_channels"]),
        spatial_ratio=int(vae["spatial_compression_ratio"]),
        patch_size=int(transformer.config.patch_size),
        text_width=int(transformer.config.text_embed_dim),
    )


def token_side(folder: Path) -> int:
    """Pixels of one transformer token along a side; pictures must fill whole tokens."""
    config = _read_json(folder / "transformer" / "config.json")
    vae = _read_json(folder / "vae" / "config.json")
    return int(vae.get("spatial_compression_ratio", 16)) * int(config.get("patch_size", 1))


def load_backbone(
    source: str,
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> Backbone:
    """Load every part of a backbone, frozen and in evaluation mode."""
    encoders = load_encoders(source, dtype=dtype, device=device)
    denoiser = load_denoiser(source, dtype=dtype, device=device)
    return Backbone(
        card=denoiser.card,
        transformer=denoiser.transformer,
        codec=encoders.codec,
        prompts=encoders.prompts,
    )


def load_denoiser(
    source: str,
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> Denoiser:
    """Load the transformer of a backbone alone."""
    from diffusers import HunyuanVideo15Transformer3DModel

    _quiet_diffusers()
    folder = resolve_backbone(source)
    transformer = HunyuanVideo15Transformer3DModel.from_pretrained(
        folder, subfolder="transformer", torch_dtype=dtype, local_files_only=True
    )
    return Denoiser(card=read_card(source), transformer=_freeze(transformer, device))


def load_encoders(
    source: str,
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> Encoders:
    """Load the VAE and the text encoders of a backbone, without its transformer."""
    from diffusers import AutoencoderKLHunyuanVideo15

    _quiet_diffusers()
    folder = resolve_backbone(source)
    vae = AutoencoderKLHunyuanVideo15.from_pretrained(
        folder, subfolder="vae", torch_dtype=dtype, local_files_only=True
    )
    patch_size = int(_read_json(folder / "transformer" / "config.json").get("patch_size", 1))
    return Encoders(
        card=read_card(source),
        codec=LatentCodec(_freeze(vae, device), patch_size=patch_size),
        prompts=load_prompts(folder, dtype=dtype, device=device),
    )


def load_prompts(
    folder: Path, *, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
) -> PromptEncoder:
    """Load tokenizers and text encoders of a backbone folder."""
    from transformers import ByT5Tokenizer, Qwen2_5_VLTextModel, T5EncoderModel
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    local: dict[str, Any] = {"local_files_only": True}
    text = Qwen2_5_VLTextModel.from_pretrained(
        folder, subfolder="text_encoder", dtype=dtype, **local
    )
    glyphs = T5EncoderModel.from_pretrained(
        folder, subfolder="text_encoder_2", dtype=dtype, **local
    )
    return PromptEncoder(
        tokenizer=load_tokenizer(folder),
        text_encoder=_freeze(text, device),
        glyph_tokenizer=ByT5Tokenizer.from_pretrained(folder, subfolder="tokenizer_2", **local),
        glyph_encoder=_freeze(glyphs, device),
    )


def load_tokenizer(folder: Path) -> Any:
    """Load the tokenizer of a backbone's text encoder, and not the encoder."""
    from transformers import Qwen2Tokenizer

    return Qwen2Tokenizer.from_pretrained(folder, subfolder="tokenizer", local_files_only=True)


@lru_cache(maxsize=8)
def fingerprint(folder: Path) -> str:
    """Hash all configs and weights of a backbone folder to 16 hex digits.

    A hub snapshot is named by its commit. Large files are sampled at 64 evenly spaced blocks:
    enough to tell trainings apart without reading 60 GB at every start.
    """
    digest = hashlib.sha256()
    if folder.parent.name == "snapshots":
        digest.update(folder.name.encode())
        return digest.hexdigest()[:16]
    files = [p for suffix in ("json", "txt", "safetensors") for p in folder.glob(f"*/*.{suffix}")]
    for path in sorted(files):
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder).as_posix()}:{size};".encode())
        with path.open("rb") as file:
            if size <= _WHOLE_BYTES:
                digest.update(file.read())
                continue
            for block in range(_NUM_BLOCKS):
                file.seek(size * block // _NUM_BLOCKS)
                digest.update(file.read(_BLOCK_BYTES))
    return digest.hexdigest()[:16]


def _quiet_diffusers() -> None:
    from diffusers.utils import logging as diffusers_logging

    diffusers_logging.disable_progress_bar()


def _freeze(module: Any, device: str | torch.device) -> Any:
    return module.requires_grad_(False).eval().to(device)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"{path} must be a readable JSON file, got {type(error).__name__}; "
            "download the backbone again"
        ) from error
    return content
