"""Settings of one backbone training run."""

from dataclasses import dataclass
from typing import Any

from dreambooth3d.artifacts.settings import require_range, resource, versioned_fields
from dreambooth3d.errors import ConfigError
from dreambooth3d.scenes import SEED_RANGES

# A longer training of the same thing may go on from a shorter one.
_LENGTHS = frozenset({"vae_steps", "vae_minutes", "steps", "minutes", "decay_fraction"})
# What the VAE sees of the other settings.
_SHARED_WITH_VAE = frozenset(
    {
        "seed", "size", "num_frames", "num_clips", "num_images", "num_references", "chunk",
        "latent_channels", "spatial_ratio", "weight_decay", "is_compiled",
    }
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class BackboneTrainConfig:
    """Everything that decides what a backbone training produces.

    Attributes:
        seed: seed of initial weights, noise and data order; scene seeds do not depend on it.
        size: side of a training frame, pixels.
        num_frames: frames of a pool clip, 4n + 1.
        num_clips: clips in the pool.
        num_images: single-frame scenes in the pool.
        num_references: views on white in the pool.
        num_captions: caption variants drawn for each scene.
        chunk: scenes in one pool file.
        num_held_out: held-out clips, and as many held-out images, for VAE scores.
        is_compiled: fuse small operations with torch.compile, which needs a C++ compiler
            (rounds a little differently, so it belongs to the result).
        workers: processes that render the pool (a resource: does not change the result).
        vocab_size: tokens of the BPE tokenizer.
        text_width: width of the text encoder.
        latent_channels: VAE latent channels.
        spatial_ratio: pixels of a VAE latent, along a side.
        patch_size: latents of a transformer token, along a side.
        vae_channels: VAE widths by resolution, finest first.
        width: transformer width, a multiple of `head_dim`.
        head_dim: width of one attention head.
        num_layers: dual-stream blocks.
        mlp_ratio: MLP width over `width`.
        vae_steps: VAE updates.
        vae_minutes: upper limit of VAE training, 0 for none; the schedule ends with whatever comes
            first.
        vae_lr: peak AdamW rate of the VAE.
        vae_batch_images: images in a VAE update.
        vae_batch_clips: clips of `vae_clip_frames` in a VAE update.
        vae_clip_frames: frames of a clip in a VAE update, 4n + 1.
        steps: transformer updates.
        minutes: upper limit of transformer training, as `vae_minutes`.
        lr: peak AdamW rate of the transformer.
        muon_lr: peak Muon rate of the matrices of `muon_parts`.
        muon_parts: name prefixes of the matrices that Muon trains; empty: AdamW trains all.
        muon_excluded: parts of names that AdamW trains all the same (orthogonalising the
            modulation's matrices is 40 % of Muon's work).
        weight_decay: AdamW weight decay on matrices.
        warmup_steps: linear warm-up updates.
        decay_fraction: last part of the schedule in which the rate falls to zero.
        batch_tokens: latent tokens in a transformer update.
        clip_fraction: share of updates that see clips.
        reference_fraction: share of updates that see views on white.
        text_dropout: share of updates with empty prompts.
        time_shift: k of s' = k s / (1 + (k - 1) s).
        ema_decay: final decay of the weight average.
        log_seconds: seconds between log lines.
        sample_minutes: minutes between sample sheets.
        checkpoint_minutes: minutes between checkpoints.
    """

    seed: int = 0
    size: int = 64
    num_frames: int = 17
    num_clips: int = 4096
    num_images: int = 16384
    num_references: int = 3072
    num_captions: int = 3
    chunk: int = 256
    num_held_out: int = 32
    is_compiled: bool = True
    workers: int = resource(2)
    vocab_size: int = 1536
    text_width: int = 128
    latent_channels: int = 16
    spatial_ratio: int = 4
    patch_size: int = 2
    vae_channels: tuple[int, ...] = (16, 32, 64)
    width: int = 256
    head_dim: int = 64
    num_layers: int = 6
    mlp_ratio: float = 1.5
    vae_steps: int = 20_000
    vae_minutes: float = 26.0
    vae_lr: float = 2e-3
    vae_batch_images: int = 32
    vae_batch_clips: int = 2
    vae_clip_frames: int = 17
    steps: int = 20_000
    minutes: float = 27.0
    lr: float = 6e-4
    muon_lr: float = 2e-3
    muon_parts: tuple[str, ...] = ("transformer_blocks.", "context_embedder.token_refiner.")
    muon_excluded: tuple[str, ...] = (".norm1.", ".norm1_context.")
    weight_decay: float = 0.01
    warmup_steps: int = 100
    decay_fraction: float = 0.25
    batch_tokens: int = 3072
    clip_fraction: float = 0.35
    reference_fraction: float = 0.1
    text_dropout: float = 0.1
    time_shift: float = 2.0
    ema_decay: float = 0.999
    log_seconds: float = resource(20.0)
    sample_minutes: float = resource(4.0)
    checkpoint_minutes: float = resource(4.0)

    def __post_init__(self) -> None:
        """Check every rule that a wrong setting would otherwise break hours later."""
        self._check_ranges()
        for name in ("num_frames", "vae_clip_frames"):
            _require(getattr(self, name) % 4 == 1, name, "4n + 1", getattr(self, name))
        side = self.spatial_ratio * self.patch_size
        _require(
            self.size % side == 0 and self.size > 0, "size", f"a multiple of {side}", self.size
        )
        _require(
            self.width % self.head_dim == 0, "width", f"a multiple of {self.head_dim}", self.width
        )
        _require(self.head_dim % 8 == 0, "head_dim", "a multiple of 8", self.head_dim)
        _require(
            self.vae_clip_frames <= self.num_frames,
            "vae_clip_frames",
            f"at most num_frames ({self.num_frames})",
            self.vae_clip_frames,
        )
        largest = self.num_frames // 4 + 1
        tokens = largest * self.frame_tokens
        _require(
            self.batch_tokens >= tokens,
            "batch_tokens",
            f"at least {tokens} (one clip)",
            self.batch_tokens,
        )

    def _check_ranges(self) -> None:
        require_range(
            self,
            "num_captions", "chunk", "num_held_out", "workers", "size", "spatial_ratio",
            "patch_size", "width", "head_dim", "num_layers", "latent_channels", "text_width",
            "vae_steps", "steps", "vae_batch_clips",
            least=1,
        )  # fmt: skip
        # Half of the frames are scenes, a quarter each views on white and frames of clips.
        require_range(self, "vae_batch_images", least=4)
        seeds = {
            "num_clips": SEED_RANGES["backbone clips"],
            "num_images": SEED_RANGES["backbone images"],
            "num_references": SEED_RANGES["backbone references"],
        }
        for name, available in seeds.items():
            require_range(self, name, least=1, most=len(available))
        require_range(
            self, "seed", "warmup_steps", "weight_decay", "minutes", "vae_minutes", least=0
        )
        require_range(self, "vae_lr", "lr", "muon_lr", "time_shift", above=0)
        require_range(
            self, "mlp_ratio", "log_seconds", "sample_minutes", "checkpoint_minutes", above=0
        )
        require_range(
            self,
            "clip_fraction", "reference_fraction", "text_dropout", "decay_fraction",
            least=0,
            most=1,
        )  # fmt: skip
        require_range(self, "ema_decay", least=0, below=1)
        _require(
            len(self.vae_channels) > 0, "vae_channels", "at least one width", self.vae_channels
        )

    @property
    def vae_training(self) -> dict[str, Any]:
        """Settings that one VAE training keeps from its first update to its last."""
        return {
            name: value
            for name, value in versioned_fields(self).items()
            if (name.startswith("vae_") or name in _SHARED_WITH_VAE) and name not in _LENGTHS
        }

    @property
    def transformer_training(self) -> dict[str, Any]:
        """Settings that one transformer training keeps from its first update to its last."""
        return {
            name: value
            for name, value in versioned_fields(self).items()
            if not name.startswith("vae_") and name not in _LENGTHS
        }

    @property
    def latent_side(self) -> int:
        """Latents along a side of a frame."""
        return self.size // self.spatial_ratio

    @property
    def frame_tokens(self) -> int:
        """Transformer tokens of a latent frame."""
        return (self.latent_side // self.patch_size) ** 2

    @property
    def num_heads(self) -> int:
        """Attention heads of the transformer."""
        return self.width // self.head_dim


def _require(is_met: bool, name: str, rule: str, value: object) -> None:
    if not is_met:
        raise ConfigError(f"{name} must be {rule}, got {value}; correct the setting")
