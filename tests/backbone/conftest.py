import pytest

from dreambooth3d.backbone.config import BackboneTrainConfig


@pytest.fixture(scope="session")
def config() -> BackboneTrainConfig:
    """The smallest training that still has every part."""
    return BackboneTrainConfig(
        size=16,
        num_frames=5,
        num_clips=3,
        num_images=6,
        num_references=4,
        num_captions=2,
        chunk=3,
        num_held_out=1,
        workers=1,
        text_width=96,
        vae_channels=(8, 16, 32),
        width=32,
        head_dim=16,
        num_layers=1,
        mlp_ratio=1.0,
        vae_steps=2,
        vae_batch_images=4,
        vae_batch_clips=1,
        vae_clip_frames=5,
        is_compiled=False,
        steps=4,
        warmup_steps=1,
        batch_tokens=16,
        log_seconds=3600,
        sample_minutes=60,
        checkpoint_minutes=60,
    )
